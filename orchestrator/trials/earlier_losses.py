"""Held-out losses of earlier runs of a sweep, from which early stopping continues."""

from collections import defaultdict
from collections.abc import Iterator

from orchestrator.record.folder import SweepFolder, TrialRecord
from trainers.foundation.jsonl import read_jsonl

_LOSS = "heldout_completion_loss"
_ENDED = ("done", "stopped")


def earlier_losses(folder: SweepFolder) -> Iterator[dict[int, float]]:
    """Return the mean held-out loss of the seeds by step, for each point whose seeds have ended.

    The last step is left out, because no trial is stopped there. A step counts if all seeds that
    have trained measured it.
    """
    seeds = defaultdict[str, list[TrialRecord]](list)
    for trial in folder.read_trials():
        point = {name: value for name, value in trial.searched.items() if name != "seed"}
        seeds[repr(sorted(point.items()))].append(trial)
    for trials in seeds.values():
        losses = [of_trial for trial in trials if (of_trial := _losses(folder, trial))]
        if losses and all(trial.state in _ENDED for trial in trials):
            common = set.intersection(*(set(one) for one in losses))
            yield {step: sum(one[step] for one in losses) / len(losses) for step in common}


def _losses(folder: SweepFolder, trial: TrialRecord) -> dict[int, float]:
    path = folder.metrics(trial.id)
    if not path.exists():
        return {}
    return {
        row["step"]: row[_LOSS]
        for row in read_jsonl(path, dict)
        if row.get(_LOSS) is not None and row["step"] < row["total_steps"]
    }
