"""A sweep from the driver's side: check, prepare the folder, run what is not done, report."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.items import digest, write_examples
from orchestrator.plain import redact
from orchestrator.plan import Prepared, SweepPlan, make_plan, pending_record
from orchestrator.record import SweepFolder, SweepRecord
from orchestrator.run_trial import now
from orchestrator.spec import SweepSpec
from orchestrator.tracking_uri import check_reachable, choose_uri
from trainers.errors import InputError, Problem
from trainers.files import write_text

_VERSIONED_PACKAGES = ("plw-sweep", "torch", "transformers", "deepspeed", "ray", "mlflow")


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended. `num_skipped` trials were done before it began, `num_unfinished` ones
    were cut short by an interrupt and go on when the sweep is run again."""

    folder: SweepFolder
    num_run: int
    num_skipped: int
    num_failed: int
    num_unfinished: int
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


def check(spec: SweepSpec, *, is_local: bool) -> Prepared:
    """Everything that can be known to be wrong before anything is written or started.

    Raises:
        InputError: all that was found.
    """
    problems: list[Problem] = []
    prepared: Prepared | None = None

    def plan() -> None:
        nonlocal prepared
        prepared = make_plan(spec)
        check_disk(prepared.plan)

    checks: list[Callable[[], None]] = [
        plan,
        lambda: check_reachable(choose_uri(spec.folder, spec.tracking.uri)),
    ]
    if is_local:
        checks.append(lambda: check_machine(spec))
    for one in checks:
        try:
            one()
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    assert prepared is not None
    return prepared


def prepare_folder(spec: SweepSpec, prepared: Prepared, spec_path: Path) -> list[str]:
    """Write the sweep's record and held-out data; returns the ids of the trials to be run."""
    plan = prepared.plan
    folder = SweepFolder(spec.folder)
    earlier = folder.read_sweep() if folder.sweep_json.exists() else None
    if earlier is not None and earlier.model["fingerprint"] != plan.model["fingerprint"]:
        shutil.rmtree(folder.untuned, ignore_errors=True)
    write_examples(folder.heldout, prepared.split.heldout)
    to_run = []
    for trial in plan.trials:
        known = folder.read_trial(trial.id)
        if known is None:
            folder.write_trial(pending_record(trial))
        if known is None or known.state != "done" or not has_scores(spec, prepared, trial.id):
            to_run.append(trial.id)
    folder.write_sweep(
        SweepRecord(
            name=spec.name,
            created_at=earlier.created_at if earlier else now(),
            spec=redact(spec.model_dump(mode="json")),
            spec_path=str(spec_path),
            trial_ids=[trial.id for trial in plan.trials],
            model=plan.model,
            data=plan.data,
            environment=environment(),
        )
    )
    write_text(folder.root / "spec.yaml", redact(spec_path.read_text(encoding="utf-8")))
    return to_run


def has_scores(spec: SweepSpec, prepared: Prepared, trial_id: str | None) -> bool:
    """Whether a trial, or the untuned model for None, has the scores that the spec asks for."""
    card = SweepFolder(spec.folder).read_scores(trial_id)
    if card is None:
        return False
    wanted = {
        "measures": spec.evals.model_dump(mode="json", exclude={"seed", "batch_size"}),
        "seed": spec.evals.seed,
        "items_sha256": digest(prepared.split.heldout),
    }
    return all(card.signature.get(key) == value for key, value in wanted.items())


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
) -> Outcome:
    """Run what is not done, keep MLflow and the terminal up to date, and write the report.

    Raises:
        InputError: the cluster is too small, or MLflow stopped answering before the start.
    """
    # MLflow and Ray take seconds to import, so only a sweep that starts pays for them.
    from orchestrator.follow import Follower
    from orchestrator.quiet import output_to
    from orchestrator.ray_sweep import UNTUNED, ray_cluster, run_trials, slots
    from orchestrator.report import write_report
    from orchestrator.tracking import FinalStatus, Tracker

    to_run = prepare_folder(spec, prepared, spec_path)
    folder = SweepFolder(spec.folder)
    work = list(to_run) if has_scores(spec, prepared, None) else [UNTUNED, *to_run]
    uri = choose_uri(spec.folder, spec.tracking.uri)
    with output_to(folder.log) as terminal:
        tracker = Tracker.open(folder, uri=uri, experiment=spec.tracking.experiment or spec.name)
        skipped = {trial.id for trial in prepared.plan.trials} - set(to_run)
        screen = None if is_silent else terminal
        follower = Follower(folder, tracker, screen, skipped=skipped)
        try:
            if work:
                with ray_cluster(address, os.cpu_count() or 1) as cluster:
                    slots(spec, cluster)
                    with follower:
                        run_trials(spec, folder, work, cluster)
            else:
                follower.show_once()
        except BaseException:
            tracker.finish("KILLED")
            raise
        states = {trial.id: trial.state for trial in folder.read_trials()}
        write_report(folder)
        num_failed = sum(state == "failed" for state in states.values())
        num_unfinished = sum(state not in ("done", "failed") for state in states.values())
        status: FinalStatus = "FAILED" if num_failed else "FINISHED"
        is_tracked = tracker.finish("KILLED" if num_unfinished else status)
    shutil.rmtree(folder.root / "ray", ignore_errors=True)
    return Outcome(
        folder=folder,
        num_run=len(to_run),
        num_skipped=len(states) - len(to_run),
        num_failed=num_failed,
        num_unfinished=num_unfinished,
        is_tracked=is_tracked,
    )
