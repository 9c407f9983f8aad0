"""Write the folder of a large sweep with mostly finished trials."""

from pathlib import Path

from orchestrator.record.folder import State, SweepFolder
from tests.orchestrator.sweeps import DEMO, UNTUNED, card, trial, write_metrics, write_sweep


def write_large_sweep(root: Path, num_trials: int, num_steps: int) -> SweepFolder:
    """Write a sweep: of 20 trials 16 are done, one each is failed, running, waiting and pending."""
    cycle: list[State] = ["done"] * 16 + ["failed", "training", "waiting", "pending"]
    trials = []
    for index in range(num_trials):
        state = cycle[index % len(cycle)]
        rate = {"optimizer.learning_rate": 1e-6 * (index + 1)}
        error = "loss is not finite at step 3" if state == "failed" else None
        record = trial(index / num_trials, state=state, error=error, searched=rate)
        trials.append(record.model_copy(update={"id": f"{index:010x}"}))
    scores = card(DEMO[0.1])
    cards = {record.id: scores for record in trials if record.state == "done"}
    folder = write_sweep(root, trials, cards, card(UNTUNED))
    for record in trials:
        if record.state == "pending":
            folder.write_trial(record)
        elif record.state != "waiting":
            write_metrics(folder, record.id, range(1, num_steps + 1))
    return folder
