"""Run a sweep: prepare its folder, run the missing trials, and write the report."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from orchestrator.foundation.redaction import redact
from orchestrator.plan.planner import pending_record, prepare_baseline, updated_record
from orchestrator.plan.sweep_plan import PreparedSweep
from orchestrator.record.folder import SweepFolder, SweepRecord
from orchestrator.record.lease import sweep_lease
from orchestrator.record.lock import sweep_lock
from orchestrator.record.remote_sweep import RemoteSweep, upload_records
from orchestrator.search.budget import Budget
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.tracking.uri import choose_uri
from orchestrator.trials.earlier_losses import earlier_losses
from orchestrator.trials.nodes import check_nodes
from orchestrator.trials.placement import (
    Cluster,
    capacity,
    describe_scoring,
    gpus_per_scorer,
    gpus_per_worker,
    trial_slots,
    workers_match_scorers,
)
from orchestrator.trials.run_trial import mark_interrupted
from orchestrator.trials.sweep_checks import check_driver_nodes
from orchestrator.trials.trial_queue import TrialQueue
from trainers.foundation.files import write_text

if TYPE_CHECKING:
    # For types only: these modules import mlflow and Ray, which takes seconds.
    from orchestrator.trials.progress_monitor import ProgressMonitor
    from orchestrator.trials.trial_driver import TrialDriver

_VERSIONED_PACKAGES = ("plw-sweep", "torch", "transformers", "deepspeed", "ray", "mlflow")


@dataclass(frozen=True)
class SweepOutcome:
    """Result of a sweep.

    `num_skipped` trials were done before. `num_unfinished` trials were interrupted and resume when
    the sweep runs again. `num_stopped` trials were stopped early. `end_reason` states why planned
    trials did not start; None if all did. `was_stopped` is True if Ctrl-C, SIGTERM or `plw stop`
    left work for the next run.
    """

    folder: SweepFolder
    num_run: int
    num_skipped: int
    num_failed: int
    num_unfinished: int
    num_not_started: int
    num_stopped: int
    end_reason: str | None
    is_tracked: bool
    was_stopped: bool


def prepare_folder(
    spec: SweepSpec, prepared: PreparedSweep, spec_path: Path, overrides: Sequence[str] = ()
) -> list[str]:
    """Write the sweep's record and held-out data; return the ids of the trials to run."""
    plan = prepared.plan
    folder = SweepFolder(spec.folder)
    for base in prepared.baselines:
        prepare_baseline(folder, base)
    # For a search, only the trials of earlier runs: later ones depend on the results.
    trials = plan.trials if spec.search.method == "grid" else prepared.history.trials
    for trial in trials:
        known = folder.read_trial(trial.id)
        record = pending_record(trial) if known is None else updated_record(known, trial)
        if record != known:
            folder.write_trial(record)
    folder.write_sweep(
        SweepRecord(
            name=spec.name,
            created_at=prepared.planner.created_at,
            spec=redact(spec.model_dump(mode="json")),
            spec_path=str(spec_path),
            trial_ids=[trial.id for trial in trials],
            bases=[base.record for base in prepared.baselines],
            environment=environment(),
            overrides=redact(list(overrides)),
        )
    )
    write_text(folder.root / "spec.yaml", redact(spec_path.read_text(encoding="utf-8")))
    return [trial.id for trial in trials if trial.state not in ("done", "stopped")]


def environment() -> dict[str, Any]:
    """Return the software and hardware of this machine, for the sweep's record."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "packages": {name: _version(name) for name in _VERSIONED_PACKAGES},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of this code if it runs from a git checkout."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def run_sweep(
    spec: SweepSpec,
    prepared: PreparedSweep,
    spec_path: Path,
    *,
    address: str | None,
    is_silent: bool = False,
    overrides: Sequence[str] = (),
    driver: "type[TrialDriver] | None" = None,
) -> SweepOutcome:
    """Run the missing trials, update MLflow and the terminal, and write the report.

    Args:
        overrides: those of --set, for the command that resumes the sweep.
        driver: class of the trials' drivers; None for `TrialDriver`. Benchmarks use others.

    Raises:
        InputError: the cluster does not answer or is too small, MLflow stopped answering before the
            start, or another sweep runs in the folder.
    """
    # Imported here, because Ray takes seconds to import.
    from orchestrator.trials.ray_cluster import ray_cluster
    from orchestrator.trials.redirect_output import redirect_output

    folder = SweepFolder(spec.folder)
    with sweep_lock(folder), redirect_output(folder.log) as terminal, ExitStack() as stack:
        screen = None if is_silent else terminal
        cluster = None
        if prepared.plan.has_work:
            # Check this before anything of the sweep is written.
            cluster = stack.enter_context(ray_cluster(address, os.cpu_count() or 1))
            trial_slots(spec.resources, cluster)
            if address is not None:
                uses_gpus = gpus_per_worker(spec.resources, cluster) > 0
                check_nodes(folder.root, spec.storage_uri, uses_gpus=uses_gpus)
            check_driver_nodes(spec, cluster)
        stored: RemoteSweep | None = None
        if spec.storage_uri is not None:
            stored = RemoteSweep(folder.root, spec.storage_uri)
            # Before anything is written: the lock of the folder is that of this machine only.
            on_loss = partial(_stop_taken_over, folder, stored)
            stack.enter_context(sweep_lease(spec.storage_uri, on_loss))
        to_run = prepare_folder(spec, prepared, spec_path, overrides)
        if stored is not None:
            stack.enter_context(upload_records(stored, folder))
        outcome = _run(spec, prepared, to_run, cluster, screen, driver)
    shutil.rmtree(folder.root / "ray", ignore_errors=True)
    return outcome


def _stop_taken_over(folder: SweepFolder, stored: RemoteSweep) -> None:
    """Stop a sweep that another head took over, without writing its records."""
    stored.stop_uploads()
    folder.request_stop(None)


def _run(
    spec: SweepSpec,
    prepared: PreparedSweep,
    to_run: list[str],
    cluster: Cluster | None,
    screen: TextIO | None,
    driver: "type[TrialDriver] | None",
) -> SweepOutcome:
    """Run a sweep whose folder is prepared; `cluster` is None if nothing is left to run."""
    from orchestrator.report.pages import write_report
    from orchestrator.tracking.tracker import FinalStatus, Tracker
    from orchestrator.trials.progress_monitor import ProgressMonitor

    folder = SweepFolder(spec.folder)
    uri = choose_uri(spec.folder, spec.tracking.uri)
    tracker = Tracker.open(folder, uri=uri, experiment=spec.tracking.experiment or spec.name)
    skipped = set(folder.read_sweep().trial_ids) - set(to_run)
    monitor = ProgressMonitor(folder, tracker, screen, skipped=skipped)
    end_reason = None
    try:
        if cluster is None:
            monitor.show_once()
        else:
            with monitor:
                end_reason = _run_jobs(spec, prepared, cluster, monitor, driver)
    except BaseException:
        _mark_interrupted(folder)
        tracker.finish("KILLED")
        raise
    _mark_interrupted(folder)
    folder.write_sweep(folder.read_sweep().model_copy(update={"end_reason": end_reason}))
    trials = folder.read_trials()
    states = Counter(trial.state for trial in trials)
    unfinished = [trial.id for trial in trials if trial.state in ("interrupted", "pending")]
    write_report(folder)
    status: FinalStatus = "FAILED" if states["failed"] else "FINISHED"
    is_tracked = tracker.finish("KILLED" if states["interrupted"] else status)
    return SweepOutcome(
        folder=folder,
        num_run=states.total() - len(skipped) - states["pending"],
        num_skipped=len(skipped),
        num_failed=states["failed"],
        num_unfinished=states["interrupted"],
        num_not_started=states["pending"],
        num_stopped=states["stopped"],
        end_reason=end_reason,
        is_tracked=is_tracked,
        was_stopped=bool(unfinished) and any(map(folder.stop_requested, (None, *unfinished))),
    )


def _run_jobs(
    spec: SweepSpec,
    prepared: PreparedSweep,
    cluster: Cluster,
    monitor: "ProgressMonitor",
    driver: "type[TrialDriver] | None",
) -> str | None:
    """Run the jobs; return the reason if the sweep ended before all jobs were done."""
    from orchestrator.search.stopping import make_scheduler
    from orchestrator.trials.ray_sweep import run_jobs
    from orchestrator.trials.trial_driver import TrialDriver

    folder = SweepFolder(spec.folder)
    resources = spec.resources
    budget = Budget(
        spec.search.budget,
        gpus_per_trial=resources.workers_per_trial * gpus_per_worker(resources, cluster),
        gpus_per_scorer=gpus_per_scorer(resources, cluster),
        price_per_gpu_hour=resources.price_per_gpu_hour,
    )
    # This line goes to the sweep's log.
    print(f"models are scored {describe_scoring(resources, cluster)}", flush=True)
    fitting = capacity(resources, cluster)
    queue = TrialQueue(
        spec,
        folder,
        prepared.planner,
        prepared.history,
        budget,
        num_slots=fitting.slots,
        num_scorers=fitting.scorers,
        slots_help=workers_match_scorers(resources, cluster),
    )
    scheduler = make_scheduler(spec.search.early_stopping)
    if scheduler is not None:
        scheduler.restore(earlier_losses(folder))

    def on_interrupt() -> None:
        folder.request_stop(None)
        monitor.show_stopping()

    driver = driver or TrialDriver
    run_jobs(spec, folder, queue, cluster, scheduler, on_interrupt, driver)
    return queue.end_reason


def _mark_interrupted(folder: SweepFolder) -> None:
    """Change the state of trials that are still recorded as running to interrupted."""
    for record in folder.read_trials():
        if record.state in ("waiting", "training", "scoring"):
            folder.write_trial(mark_interrupted(record))
