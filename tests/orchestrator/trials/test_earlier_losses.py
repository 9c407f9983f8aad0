"""Which losses of earlier runs early stopping continues from."""

import json
from pathlib import Path
from typing import Any

from orchestrator.record.folder import SweepFolder
from orchestrator.trials.earlier_losses import earlier_losses
from tests.orchestrator.trials.test_trial_queue import PLW, Bench


def write_metrics(folder: SweepFolder, trial_id: str, losses: dict[int, float]) -> None:
    rows: list[dict[str, Any]] = [
        {"step": step, "total_steps": 20, "heldout_completion_loss": loss}
        for step, loss in losses.items()
    ]
    rows.append({"step": 7, "total_steps": 20, "heldout_completion_loss": None})
    folder.metrics(trial_id).parent.mkdir(parents=True, exist_ok=True)
    folder.metrics(trial_id).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_losses_are_means_over_seeds_of_points_that_have_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search={"space": {PLW: [0, 0.1, 0.5, 1]}, "seeds": [1, 2]})
    trials = bench.folder.read_trials()
    losses = [
        *({5: 3.0, 10: 2.0, 20: 1.0}, {5: 4.0, 10: 3.0, 20: 2.0}),
        # A stopped point whose second seed never started.
        *({5: 9.0}, {}),
        *({5: 1.0}, {5: 1.0}),
    ]
    states = ["done", "done", "stopped", "stopped", "done", "interrupted", "pending", "pending"]
    for trial, state in zip(trials, states, strict=True):
        bench.folder.write_trial(trial.model_copy(update={"state": state}))
    for trial, of_trial in zip(trials, losses, strict=False):
        if of_trial:
            write_metrics(bench.folder, trial.id, of_trial)
    assert list(earlier_losses(bench.folder)) == [{5: 3.5, 10: 2.5}, {5: 9.0}]
