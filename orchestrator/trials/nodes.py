"""Whether a node of a cluster can take part in a sweep: it runs this code and sees the folder."""

import logging
import os
import socket
import time
import uuid
from pathlib import Path

from orchestrator.foundation.packages import check_packages, code_digest
from orchestrator.record.stored_sweep import check_store
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder

# Set for the processes that Ray starts for a sweep on a cluster; on one machine nothing can differ.
DIGEST_VARIABLE = "PLW_CODE_DIGEST"
PROBE_FOLDER = ".nodes"
PROBE_TIMEOUT_S = 300.0
MAX_CLOCK_SKEW_S = 30.0

logger = logging.getLogger(__name__)


def check_node(root: Path, stored_at: str | None = None) -> float:
    """The time of this node's clock, if it runs the sweep's code and can write where it is kept.

    Args:
        root: the sweep's folder.
        stored_at: its object store, where nodes share no folder.

    Raises:
        InputError: it does or can not, and why.
    """
    check_packages()
    expected = os.environ.get(DIGEST_VARIABLE)
    if expected is not None:
        _check_code(expected)
    if stored_at is not None:
        check_store(stored_at)
        check_output_folder(root, where="output_dir")
    elif expected is not None:
        _check_storage(root)
    return time.time()


def check_nodes(root: Path, stored_at: str | None = None) -> None:
    """Let each node of the cluster that is there now prove that it can take part.

    Raises:
        InputError: with the reason of each that cannot.
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
            asked[probe.options(scheduling_strategy=here).remote(root, stored_at)] = name
    problems: list[Problem] = []
    answered, silent = ray.wait([*asked], num_returns=len(asked), timeout=PROBE_TIMEOUT_S)
    for answer in answered:
        try:
            _note_skew(asked[answer], ray.get(answer), asked_at)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, InputError):
                raise
            problems += cause.problems
        except ray.exceptions.RayError as error:
            # It went away, as spot nodes do; one that comes in its place is asked as it joins.
            logger.warning("node %s did not answer: %s", asked[answer], error)
    for answer in silent:
        logger.warning("node %s did not answer within %g s", asked[answer], PROBE_TIMEOUT_S)
    if problems:
        raise InputError(problems)


def _note_skew(node: str, its_time: float, asked_at: float) -> None:
    """Say it where a clock is wrong: times in MLflow are those of the node that trained."""
    ahead = its_time - time.time()
    behind = asked_at - its_time
    if max(ahead, behind) > MAX_CLOCK_SKEW_S:
        logger.warning("the clock of %s is off by about %.0f s", node, max(ahead, behind))


def _check_code(expected: str) -> None:
    if code_digest() != expected:
        raise InputError(
            Problem(
                message=f"host {socket.gethostname()} runs other code of plw-sweep "
                f"({check_packages()}) than the sweep's driver",
                fix="start the sweep with plw submit, which ships its code, or install the same "
                "version on every node",
            )
        )


def _check_storage(root: Path) -> None:
    """A node without the storage would write into a folder of its own that nobody else sees."""
    host = socket.gethostname()
    probes = root / PROBE_FOLDER
    if not probes.is_dir():
        raise InputError(
            Problem(
                message=f"host {host} does not see the sweep's folder {root}",
                where="output_dir",
                fix="mount the shared storage there at the same path, or set output_dir to a "
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
                fix="mount the shared storage there so that it can be written to, and make room",
            )
        ) from error
