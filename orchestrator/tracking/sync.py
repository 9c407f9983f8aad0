"""Post the record of a sweep that is not running to MLflow, for `plw sync`."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import is_running, sweep_lock
from orchestrator.tracking.tracker import FinalStatus, Tracker
from orchestrator.tracking.uri import choose_uri
from trainers.foundation.errors import InputError, Problem


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """The sweep's location in MLflow; `is_complete` is false if MLflow rejected some of it."""

    uri: str
    experiment: str
    parent_run_id: str
    num_runs: int
    is_complete: bool


def sync_sweep(
    folder: SweepFolder,
    uri: str | None,
    progress: Callable[[list[str]], Iterable[str]],
) -> SyncResult:
    """Post everything of a sweep that MLflow lacks, as reported by MLflow itself.

    Args:
        uri: URI of the MLflow to post to; None for the sweep's recorded one.
        progress: wraps the trial ids to show the progress.

    Raises:
        InputError: the sweep is running, or MLflow is not reachable.
    """
    if is_running(folder):
        raise InputError(
            Problem(
                message="the sweep is running and posts to MLflow itself",
                where=str(folder.relative()),
                fix="wait until it ends, or stop it with plw stop",
            )
        )
    spec = folder.read_sweep().spec
    experiment = spec["tracking"]["experiment"] or spec["name"]
    with sweep_lock(folder):
        tracker = Tracker.open(
            folder, uri=_uri(folder, uri), experiment=experiment, is_verified=True
        )
        for trial_id in progress(folder.read_sweep().trial_ids):
            tracker.sync_trial(trial_id)
        is_complete = tracker.finish(final_status(folder))
    return SyncResult(
        uri=tracker.record.uri,
        experiment=experiment,
        parent_run_id=tracker.record.parent_run_id,
        num_runs=len(tracker.record.trial_run_ids),
        is_complete=is_complete,
    )


def final_status(folder: SweepFolder) -> FinalStatus:
    """Return the MLflow status of a sweep that has ended."""
    states = {trial.state for trial in folder.read_trials()}
    if states - {"done", "stopped", "failed"}:
        return "KILLED"
    return "FAILED" if "failed" in states else "FINISHED"


def _uri(folder: SweepFolder, explicit: str | None) -> str:
    """Return `explicit`, else the recorded URI, else the default for a new sweep."""
    known = folder.read_tracking()
    if explicit is not None or known is None:
        return choose_uri(folder.root, explicit)
    # The record contains no passwords, but the environment may.
    current = os.environ.get("MLFLOW_TRACKING_URI")
    return current if current and redact(current) == known.uri else known.uri
