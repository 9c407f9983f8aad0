"""Decide which trained models of a sweep to keep, and delete the others.

The records and scores of a trial stay. A trial without its model is trained again only if a later
run asks for scores that it does not have.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.record.remote_sweep import STORED, RemoteSweep
from orchestrator.spec.search_fields import OBJECTIVES
from orchestrator.spec.sweep_spec import KeepModels
from orchestrator.statistics.aggregates import add_aggregates

_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Something of a sweep to delete: its path below the folder, its size, and why.

    `trial_id` is None if it belongs to no trial; `num_bytes` is None for a model that only the
    sweep's object store has.
    """

    path: Path
    num_bytes: int | None
    reason: str
    trial_id: str | None = None

    @property
    def is_model(self) -> bool:
        return self.path.name == "model"


def kept_models(
    folder: SweepFolder, trials: Iterable[TrialRecord], keep: KeepModels, objective: str
) -> set[str]:
    """Return the ids of the finished trials whose models are kept.

    `best` is the trial with the best value of `objective`, the first of equal ones; without any
    value, all trials are kept. `last` is the trial that ended last.
    """
    done = [trial for trial in trials if trial.state == "done"]
    if keep == "none" or not done:
        return set()
    if keep == "last":
        return {max(done, key=lambda trial: trial.ended_at or "").id}
    if keep == "best":
        values = {trial.id: _value(folder, trial.id, objective) for trial in done}
        known = {trial_id: value for trial_id, value in values.items() if value is not None}
        pick = max if OBJECTIVES.get(objective, True) else min
        if known:
            return {pick(known, key=lambda trial_id: known[trial_id])}
    return {trial.id for trial in done}


def find_removals(
    folder: SweepFolder, keep: KeepModels, trials: Sequence[TrialRecord] | None = None
) -> list[Removal]:
    """Return the models, checkpoints and temporary files of a sweep that need not be kept.

    A trial that is not done or stopped keeps everything: it resumes from its checkpoint.
    """
    trials = folder.read_trials() if trials is None else trials
    objective = folder.read_sweep().objective
    kept = kept_models(folder, trials, keep, objective)
    found: list[Removal] = []
    for trial in trials:
        place = folder.trial(trial.id)
        if trial.state in ("done", "stopped") and (place / _CHECKPOINTS).is_dir():
            found.append(
                _removal(place / _CHECKPOINTS, "checkpoints of a finished trial", trial.id)
            )
        if trial.state == "done" and trial.id not in kept and (place / "model").is_dir():
            found.append(_removal(place / "model", f"a model that `{keep}` drops", trial.id))
    if (folder.root / "ray").is_dir():
        found.append(_removal(folder.root / "ray", "Ray's temporary files"))
    return found


def remove(folder: SweepFolder, removals: Iterable[Removal]) -> None:
    """Delete what `find_removals` returned, in the folder and in the sweep's object store.

    Raises:
        StorageError: the object store fails repeatedly.
    """
    sweep = folder.read_sweep()
    storage = sweep.spec.get("storage")
    stored = RemoteSweep(folder.root, f"{storage}/{sweep.name}") if storage else None
    for removal in removals:
        if removal.trial_id is None or not removal.is_model:
            shutil.rmtree(removal.path, ignore_errors=True)
            continue
        place = folder.trial(removal.trial_id)
        # In the store first: a local placeholder shows that the store has the model. The marker
        # train.json is deleted first, so that a killed deletion leaves no half of a model.
        if stored is not None:
            stored.remove_model(removal.trial_id)
        (place / "train.json").unlink(missing_ok=True)
        for name in ("model", "adapter"):
            shutil.rmtree(place / name, ignore_errors=True)


def _value(folder: SweepFolder, trial_id: str, objective: str) -> float | None:
    card = folder.read_scores(trial_id)
    score = add_aggregates(card, None).by_name().get(objective) if card is not None else None
    return None if score is None else score.value


def _removal(path: Path, reason: str, trial_id: str | None = None) -> Removal:
    is_elsewhere = (path / STORED).exists()
    size = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return Removal(
        path=path, num_bytes=None if is_elsewhere else size, reason=reason, trial_id=trial_id
    )


def total_bytes(removals: Iterable[Removal]) -> int:
    """Return the known size of all removals."""
    return sum(one.num_bytes or 0 for one in removals)
