"""Check that each node of a cluster has the same code, the sweep's storage and usable GPUs."""

import importlib.metadata
import logging
import os
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from orchestrator.foundation.packages import check_packages, code_digest
from orchestrator.record.remote_sweep import check_store
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder

# Only set for processes that Ray starts on a cluster; on one machine the code cannot differ.
DIGEST_VARIABLE = "PLW_CODE_DIGEST"
PROBE_FOLDER = ".nodes"
PROBE_TIMEOUT_S = 300.0
MAX_CLOCK_SKEW_S = 30.0
# Ray sets it to an empty string in a process without GPUs.
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"

logger = logging.getLogger(__name__)


def check_node(root: Path, storage_uri: str | None = None, *, uses_gpus: bool = False) -> float:
    """Check that this node can take part in the sweep; return the time of its clock.

    Args:
        root: the sweep's folder.
        storage_uri: its object store, if nodes share no folder.
        uses_gpus: whether the sweep uses GPUs of this node.

    Raises:
        InputError: the node runs other code, cannot write to the folder or store, or has GPUs that
            torch cannot use.
    """
    check_packages()
    if uses_gpus:
        _check_gpu_of_node()
    expected = os.environ.get(DIGEST_VARIABLE)
    if expected is not None:
        _check_code(expected)
    if storage_uri is not None:
        check_store(storage_uri)
        check_output_folder(root, where="output_dir")
    elif expected is not None:
        _check_storage(root)
    return time.time()


def check_gpu() -> None:
    """Check that torch can use the GPUs that Ray assigned to this process, if any.

    Raises:
        InputError: it cannot, for example because the driver is too old for torch's CUDA.
    """
    import ray

    if not ray.get_gpu_ids():
        return
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    # torch without CUDA fails with AssertionError, an unsuitable driver with RuntimeError.
    except (AssertionError, RuntimeError) as error:
        raise InputError(_gpu_problem(str(error))) from error


def _check_gpu_of_node() -> None:
    """Run the check of `check_gpu` in a process that sees the GPUs, unlike this one."""
    environment = {name: os.environ[name] for name in os.environ if name != _VISIBLE_GPUS}
    done = subprocess.run(
        [sys.executable, "-c", "import torch; torch.cuda.init()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise InputError(_gpu_problem(done.stderr.strip().splitlines()[-1]))


def _gpu_problem(reason: str) -> Problem:
    version = importlib.metadata.version("torch")
    return Problem(
        message=f"host {socket.gethostname()} has GPUs that torch {version} cannot use: {reason}",
        fix="on every node, install a torch for the CUDA version that nvidia-smi shows, or a newer "
        "driver; or set resources.gpus_per_worker to 0",
    )


def check_nodes(root: Path, storage_uri: str | None = None, *, uses_gpus: bool = False) -> None:
    """Run `check_node` on each current node of the cluster.

    Args:
        uses_gpus: whether the sweep uses GPUs.

    Raises:
        InputError: nodes fail the check; lists the reason of each.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probes = root / PROBE_FOLDER
    probes.mkdir(parents=True, exist_ok=True)
    probe = ray.remote(num_cpus=0, max_retries=0)(check_node)
    asked_at = time.time()
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            has_gpus = uses_gpus and node["Resources"].get("GPU", 0) > 0
            probing = probe.options(scheduling_strategy=here)
            asked[probing.remote(root, storage_uri, uses_gpus=has_gpus)] = name
    problems: list[Problem] = []
    answered, silent = ray.wait([*asked], num_returns=len(asked), timeout=PROBE_TIMEOUT_S)
    for answer in answered:
        try:
            _warn_of_clock_skew(asked[answer], ray.get(answer), asked_at)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, InputError):
                raise
            problems += cause.problems
        except ray.exceptions.RayError as error:
            # The node has left, as spot nodes may; its replacement is checked when it joins.
            logger.warning("node %s did not answer: %s", asked[answer], error)
    for answer in silent:
        logger.warning("node %s did not answer within %g s", asked[answer], PROBE_TIMEOUT_S)
    if problems:
        raise InputError(problems)


def _warn_of_clock_skew(node: str, its_time: float, asked_at: float) -> None:
    """Warn if a clock is wrong, because times in MLflow are those of the node that trained."""
    ahead = its_time - time.time()
    behind = asked_at - its_time
    if max(ahead, behind) > MAX_CLOCK_SKEW_S:
        logger.warning("the clock of %s is off by about %.0f s", node, max(ahead, behind))


def _check_code(expected: str) -> None:
    if code_digest() != expected:
        raise InputError(
            Problem(
                message=f"host {socket.gethostname()} has different code of plw-sweep "
                f"({check_packages()}) from the sweep's driver",
                fix="start the sweep with plw submit, which copies the code to the nodes, or "
                "install the same version on every node",
            )
        )


def _check_storage(root: Path) -> None:
    """Check that the folder is shared; a node without the mount would write to its local disk."""
    host = socket.gethostname()
    probes = root / PROBE_FOLDER
    if not probes.is_dir():
        raise InputError(
            Problem(
                message=f"host {host} does not see the sweep's folder {root}",
                where="output_dir",
                fix="mount the shared storage on the host at the same path, or set output_dir to a "
                "folder that all nodes share",
            )
        )
    probe = probes / f"{host}-{uuid.uuid4().hex}"
    try:
        probe.write_text(host, encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise InputError(
            Problem(
                message=f"host {host} cannot write into the sweep's folder {root}: "
                f"{error.strerror or error}",
                where="output_dir",
                fix="mount the shared storage on the host with write access, and free space",
            )
        ) from error
