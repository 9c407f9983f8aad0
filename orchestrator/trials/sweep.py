"""A sweep from the driver's side: check, prepare the folder, run what is not done, report."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from evals.judge.suites import check_judging
from orchestrator.foundation.redaction import redact
from orchestrator.plan.planner import pending_record, prepare_base, refreshed_record
from orchestrator.plan.sweep_plan import Prepared, SweepPlan, make_plan
from orchestrator.record.folder import SweepFolder, SweepRecord
from orchestrator.record.lock import only_sweep_in
from orchestrator.record.stored_sweep import StoredSweep, check_store, kept_records
from orchestrator.search.budget import Budget
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.tracking.uri import check_reachable, choose_uri
from orchestrator.trials.address import check_address
from orchestrator.trials.nodes import check_nodes
from orchestrator.trials.placement import (
    DRIVER_RESOURCE,
    Cluster,
    NodeShape,
    gpus_per_scorer,
    gpus_per_worker,
    room,
    scores_alike,
    slots,
    where_scored,
)
from orchestrator.trials.run_trial import interrupted, now
from orchestrator.trials.trial_queue import TrialQueue
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder, write_text

if TYPE_CHECKING:
    # Types only: these import mlflow and Ray, which take seconds.
    from orchestrator.trials.follow import Follower
    from orchestrator.trials.trial_driver import TrialDriver

_VERSIONED_PACKAGES = ("plw-sweep", "torch", "transformers", "deepspeed", "ray", "mlflow")


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    `num_skipped` trials were done before it began, `num_unfinished` ones were cut short by an
    interrupt and go on when the sweep is run again, `num_stopped` ones were given up early.
    `end_reason` says why trials that were planned did not start.
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


def check_machine(spec: SweepSpec) -> None:
    """Raise InputError where this machine is too small for one trial; a cluster is asked later."""
    resources = spec.resources
    cores = os.cpu_count() or 1
    needed = resources.workers_per_trial * resources.cpus_per_worker
    if needed > cores:
        raise InputError(
            Problem(
                message=f"a trial needs {needed} CPU cores ({resources.workers_per_trial} workers"
                f" of {resources.cpus_per_worker}), but this machine has {cores}",
                fix="lower resources.workers_per_trial or resources.cpus_per_worker, or give a "
                "cluster with --address",
            )
        )


def check_cluster(spec: SweepSpec, address: str) -> str:
    """Where the cluster at `address` would score models, in words.

    Raises:
        InputError: it will never hold a trial.
    """
    from orchestrator.trials.ray_cluster import ray_cluster

    with ray_cluster(address, num_cpus=0) as cluster:
        return where_scored(spec.resources, cluster)


def scored_on_this_machine(spec: SweepSpec) -> str | None:
    """Where this machine would score models, in words; None where it is too small for a trial."""
    import torch

    resources = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    try:
        return where_scored(spec.resources, Cluster([NodeShape(resources, 1)]))
    except InputError:
        # It may be planned on a machine without the GPUs that the spec asks for.
        return None


def check_disk(plan: SweepPlan) -> None:
    """Raise InputError where the models and checkpoints would not fit on the disk."""
    folder = Path(plan.output_dir)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if plan.estimated_disk_gib is not None and plan.estimated_disk_gib > free:
        raise InputError(
            Problem(
                message=f"the sweep needs about {plan.estimated_disk_gib:.1f} GiB of disk, but "
                f"{free:.1f} GiB are free at {folder}",
                fix="free some, or set output_dir to a larger disk",
            )
        )


def check(spec: SweepSpec, *, address: str | None) -> Prepared:
    """Everything that can be known to be wrong before anything is written or started.

    Args:
        address: of the cluster to run on; None for this machine.

    Raises:
        InputError: all that was found.
    """
    problems: list[Problem] = []
    prepared: Prepared | None = None

    def plan() -> None:
        nonlocal prepared
        if spec.stored_at is not None:
            check_store(spec.stored_at)
            StoredSweep(spec.folder, spec.stored_at).restore()
        prepared = make_plan(spec)
        check_disk(prepared.plan)

    checks: list[Callable[[], None]] = [
        plan,
        lambda: check_output_folder(spec.folder, where="output_dir"),
        lambda: check_reachable(choose_uri(spec.folder, spec.tracking.uri)),
        lambda: check_judging(spec.evals),
    ]
    if address is None:
        checks.append(lambda: check_machine(spec))
    else:
        checks.append(lambda: check_address(address))
    for one in checks:
        try:
            one()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    assert prepared is not None
    return prepared


def _check_one_folder(spec: SweepSpec, cluster: Cluster) -> None:
    """Raise InputError where drivers of trials could write records beside the sweep's process."""
    if spec.storage is not None and len(cluster.nodes) > 1 and not cluster.has_driver_nodes:
        raise InputError(
            Problem(
                message="with storage, the drivers of trials have to run where the sweep does, and "
                "this cluster has no node for them",
                where="storage",
                fix=f"start Ray on the head with --resources='{{\"{DRIVER_RESOURCE}\": 1000}}', as "
                "cluster.yaml does",
            )
        )


def prepare_folder(spec: SweepSpec, prepared: Prepared, spec_path: Path) -> list[str]:
    """Write the sweep's record and held-out data; returns the ids of the trials to be run."""
    plan = prepared.plan
    folder = SweepFolder(spec.folder)
    earlier = folder.read_sweep() if folder.sweep_json.exists() else None
    for base in prepared.bases:
        prepare_base(folder, base)
    # Of a search only what it has asked for before: what it asks for next depends on the results.
    trials = plan.trials if spec.search.method == "grid" else prepared.history.trials
    for trial in trials:
        known = folder.read_trial(trial.id)
        record = pending_record(trial) if known is None else refreshed_record(known, trial)
        if record != known:
            folder.write_trial(record)
    folder.write_sweep(
        SweepRecord(
            name=spec.name,
            created_at=earlier.created_at if earlier else now(),
            spec=redact(spec.model_dump(mode="json")),
            spec_path=str(spec_path),
            trial_ids=[trial.id for trial in trials],
            bases=[base.record for base in prepared.bases],
            environment=environment(),
        )
    )
    write_text(folder.root / "spec.yaml", redact(spec_path.read_text(encoding="utf-8")))
    return [trial.id for trial in trials if trial.state not in ("done", "stopped")]


def environment() -> dict[str, Any]:
    """What the sweep runs on, for whoever repeats it."""
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
    """The commit of this code where it runs from a checkout."""
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
    prepared: Prepared,
    spec_path: Path,
    *,
    address: str | None,
    is_silent: bool = False,
    driver: "type[TrialDriver] | None" = None,
) -> Outcome:
    """Run what is not done, keep MLflow and the terminal up to date, and write the report.

    Args:
        driver: of the trials, another one than usual where what trials do is not wanted.

    Raises:
        InputError: the cluster is not there or too small, MLflow stopped answering before the
            start, or another sweep runs in the folder.
    """
    # Ray takes seconds to import, so only a sweep that starts pays for it.
    from orchestrator.trials.quiet import output_to
    from orchestrator.trials.ray_cluster import ray_cluster

    folder = SweepFolder(spec.folder)
    with only_sweep_in(folder), output_to(folder.log) as terminal, ExitStack() as stack:
        screen = None if is_silent else terminal
        cluster = None
        if prepared.plan.has_work:
            # Nothing of the sweep is written before it is known that it can run.
            cluster = stack.enter_context(ray_cluster(address, os.cpu_count() or 1))
            slots(spec.resources, cluster)
            if address is not None:
                check_nodes(folder.root, spec.stored_at)
            _check_one_folder(spec, cluster)
        to_run = prepare_folder(spec, prepared, spec_path)
        if spec.stored_at is not None:
            stored = StoredSweep(folder.root, spec.stored_at)
            stack.enter_context(kept_records(stored, folder))
        outcome = _run(spec, prepared, to_run, cluster, screen, driver)
    shutil.rmtree(folder.root / "ray", ignore_errors=True)
    return outcome


def _run(
    spec: SweepSpec,
    prepared: Prepared,
    to_run: list[str],
    cluster: Cluster | None,
    screen: TextIO | None,
    driver: "type[TrialDriver] | None",
) -> Outcome:
    """The sweep once its folder is prepared; `cluster` is None where nothing is to be run."""
    from orchestrator.report.pages import write_report
    from orchestrator.tracking.tracker import FinalStatus, Tracker
    from orchestrator.trials.follow import Follower

    folder = SweepFolder(spec.folder)
    uri = choose_uri(spec.folder, spec.tracking.uri)
    tracker = Tracker.open(folder, uri=uri, experiment=spec.tracking.experiment or spec.name)
    skipped = set(folder.read_sweep().trial_ids) - set(to_run)
    follower = Follower(folder, tracker, screen, skipped=skipped)
    end_reason = None
    try:
        if cluster is None:
            follower.show_once()
        else:
            with follower:
                end_reason = _run_jobs(spec, prepared, cluster, follower, driver)
    except BaseException:
        _mark_interrupted(folder)
        tracker.finish("KILLED")
        raise
    _mark_interrupted(folder)
    folder.write_sweep(folder.read_sweep().model_copy(update={"end_reason": end_reason}))
    states = Counter(trial.state for trial in folder.read_trials())
    write_report(folder)
    status: FinalStatus = "FAILED" if states["failed"] else "FINISHED"
    is_tracked = tracker.finish("KILLED" if states["interrupted"] else status)
    return Outcome(
        folder=folder,
        num_run=states.total() - len(skipped) - states["pending"],
        num_skipped=len(skipped),
        num_failed=states["failed"],
        num_unfinished=states["interrupted"],
        num_not_started=states["pending"],
        num_stopped=states["stopped"],
        end_reason=end_reason,
        is_tracked=is_tracked,
    )


def _run_jobs(
    spec: SweepSpec,
    prepared: Prepared,
    cluster: Cluster,
    follower: "Follower",
    driver: "type[TrialDriver] | None",
) -> str | None:
    """Run what is to be run; returns why it ended before everything was done, if it did."""
    from orchestrator.search.stopping import make_scheduler
    from orchestrator.trials.ray_scorers import RayScorers, scorer_settings
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
    # Into the sweep's log.
    print(f"models are scored {where_scored(resources, cluster)}", flush=True)
    num_scorers = room(resources, cluster).scorers
    scorers = RayScorers(num_scorers, scorer_settings(spec, cluster)) if num_scorers else None
    queue = TrialQueue(
        spec,
        folder,
        prepared.planner,
        prepared.history,
        budget,
        scorers,
        has_others_score=scores_alike(resources, cluster),
    )
    scheduler = make_scheduler(spec.search.early_stopping)

    def on_interrupt() -> None:
        folder.request_stop(None)
        follower.say_stopping()

    driver = driver or TrialDriver
    try:
        run_jobs(spec, folder, queue, cluster, scheduler, on_interrupt, driver)
    finally:
        if scorers is not None:
            scorers.close()
    return queue.end_reason


def _mark_interrupted(folder: SweepFolder) -> None:
    """Trials that still seem to run when the sweep ends were cut short with it."""
    for record in folder.read_trials():
        if record.state in ("waiting", "training", "scoring"):
            folder.write_trial(interrupted(record))
