"""Bring MLflow up to the record of a sweep that does not run: `plw sync`."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import is_running, only_sweep_in
from orchestrator.tracking.tracker import FinalStatus, Tracker
from orchestrator.tracking.uri import choose_uri
from trainers.foundation.errors import InputError, Problem


@dataclass(frozen=True, kw_only=True)
class Synced:
    """Where a sweep is in MLflow now; `is_complete` is false where MLflow did not take it all."""

    uri: str
    experiment: str
    parent_run_id: str
    num_runs: int
    is_complete: bool


def sync_sweep(
    folder: SweepFolder,
    uri: str | None,
    progress: Callable[[list[str]], Iterable[str]],
) -> Synced:
    """Post to MLflow what it lacks of a sweep, by what it has and not by what it was told.

    Args:
        uri: where to, instead of where the sweep was tracked before.
        progress: wraps the trials' ids and shows how far their posting is.

    Raises:
        InputError: the sweep runs now, or MLflow is not reachable.
    """
    if is_running(folder):
        raise InputError(
            Problem(
                message="a sweep is running in this folder, and posts to MLflow by itself",
                where=str(folder.relative()),
                fix="wait for it, or end it with plw stop",
            )
        )
    spec = folder.read_sweep().spec
    experiment = spec["tracking"]["experiment"] or spec["name"]
    with only_sweep_in(folder):
        tracker = Tracker.open(
            folder, uri=_uri(folder, uri), experiment=experiment, is_verified=True
        )
        for trial_id in progress(folder.read_sweep().trial_ids):
            tracker.sync_trial(trial_id)
        is_complete = tracker.finish(final_status(folder))
    return Synced(
        uri=tracker.record.uri,
        experiment=experiment,
        parent_run_id=tracker.record.parent_run_id,
        num_runs=len(tracker.record.trial_run_ids),
        is_complete=is_complete,
    )


def final_status(folder: SweepFolder) -> FinalStatus:
    """How MLflow shows the run of a sweep that has ended."""
    states = {trial.state for trial in folder.read_trials()}
    if states - {"done", "stopped", "failed"}:
        return "KILLED"
    return "FAILED" if "failed" in states else "FINISHED"


def _uri(folder: SweepFolder, explicit: str | None) -> str:
    """`explicit`, else where the sweep was tracked before, else where it would be."""
    known = folder.read_tracking()
    if explicit is not None or known is None:
        return choose_uri(folder.root, explicit)
    # The record holds no passwords, the environment may.
    current = os.environ.get("MLFLOW_TRACKING_URI")
    return current if current and redact(current) == known.uri else known.uri
