"""Check and plan a sweep before anything is started."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from evals.engine_config import check_program
from evals.harness.plan_check import OnDownload, OnWarning, check_tasks
from evals.judge.suites import check_judge_setup
from orchestrator.plan.sweep_plan import PreparedSweep, SweepPlan, make_plan
from orchestrator.record.remote_sweep import RemoteSweep, check_store
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.tracking.uri import check_reachable, choose_uri
from orchestrator.trials.placement import (
    DRIVER_RESOURCE,
    Cluster,
    NodeShape,
    describe_scoring,
)
from orchestrator.trials.ray_address import check_address
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder


def check_machine(spec: SweepSpec) -> None:
    """Check that this machine has enough cores for one trial.

    Raises:
        InputError: it has too few cores.
    """
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
    """Return text that states where the cluster at `address` would score models.

    Raises:
        InputError: no trial fits on the cluster.
    """
    from orchestrator.trials.ray_cluster import ray_cluster

    with ray_cluster(address, num_cpus=0) as cluster:
        return describe_scoring(spec.resources, cluster)


def describe_local_scoring(spec: SweepSpec) -> str | None:
    """Return text on where this machine would score models; None if no trial fits on it."""
    import torch

    resources = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    try:
        return describe_scoring(spec.resources, Cluster([NodeShape(resources, 1)]))
    except InputError:
        # The sweep may be planned on a machine without the GPUs that it needs.
        return None


def check_disk(plan: SweepPlan) -> None:
    """Check that the models and checkpoints fit on the disk.

    Raises:
        InputError: they do not fit.
    """
    folder = Path(plan.output_dir)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if plan.estimated_disk_gib is not None and plan.estimated_disk_gib > free:
        raise InputError(
            Problem(
                message=f"the sweep needs about {plan.estimated_disk_gib:.1f} GiB of disk, but "
                f"{free:.1f} GiB are free at {folder}",
                fix="free disk space, or set output_dir to a larger disk",
            )
        )


def check_sweep(
    spec: SweepSpec,
    *,
    address: str | None,
    on_download: OnDownload | None = None,
    on_warning: OnWarning | None = None,
    restores: bool = True,
) -> PreparedSweep:
    """Check and plan a sweep before anything is started.

    Args:
        address: address of the cluster to run on; None for this machine.
        on_download: called before data sets of benchmarks are downloaded.
        on_warning: called with warnings about benchmarks.
        restores: download the records of an object store into the sweep's folder. Otherwise nothing
            is written there.

    Raises:
        InputError: the sweep cannot run; lists all problems.
    """
    problems: list[Problem] = []
    prepared: PreparedSweep | None = None

    def plan() -> None:
        nonlocal prepared
        if spec.storage_uri is None or (not restores and spec.folder.exists()):
            prepared = make_plan(spec)
        else:
            check_store(spec.storage_uri)
            prepared = _plan_restored(spec, spec.storage_uri, in_place=restores)
        check_disk(prepared.plan)

    checks: list[Callable[[], None]] = [
        plan,
        lambda: check_tasks(spec.evals, on_download, on_warning),
        lambda: check_output_folder(spec.folder, where="output_dir"),
        lambda: check_reachable(choose_uri(spec.folder, spec.tracking.uri)),
        lambda: check_judge_setup(spec.evals),
    ]
    if address is None:
        checks.append(lambda: check_machine(spec))
        if spec.evals.engine == "vllm":
            checks.append(lambda: check_program(spec.evals.vllm))
    else:
        checks.append(lambda: check_address(address))
    for one in checks:
        try:
            one()
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise InputError(problems)
    assert prepared is not None
    return prepared


def _plan_restored(spec: SweepSpec, storage: str, *, in_place: bool) -> PreparedSweep:
    """Plan a sweep with the records of its object store, in its folder or in a temporary one."""
    with TemporaryDirectory(prefix="plw-") as temporary:
        folder = spec.folder if in_place else Path(temporary) / spec.name
        RemoteSweep(folder, storage).restore()
        prepared = make_plan(spec.model_copy(update={"output_dir": str(folder)}))
        plan = prepared.plan.model_copy(update={"output_dir": str(spec.folder)})
        return replace(prepared, plan=plan)


def check_driver_nodes(spec: SweepSpec, cluster: Cluster) -> None:
    """Check that trial drivers run only on nodes with the sweep's records.

    Raises:
        InputError: they could run on other nodes.
    """
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
