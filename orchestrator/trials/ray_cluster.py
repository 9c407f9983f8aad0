"""The Ray cluster that a sweep runs on: connect to it or start one, and see what it holds."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.state import state as ray_state

from orchestrator.foundation.packages import code_digest
from orchestrator.trials.address import no_cluster
from orchestrator.trials.nodes import DIGEST_VARIABLE
from orchestrator.trials.placement import MANY, Cluster, NodeShape, shapes_of_config
from trainers.foundation.settings_file import read_yaml

LOCAL_STARTS = 3
HOSTS_TIMEOUT_S = 300.0
# Where `ray up` puts the configuration on the head of the cluster that it launches.
LAUNCHED_WITH = Path("~/ray_bootstrap_config.yaml")


@contextmanager
def ray_cluster(address: str | None, num_cpus: int) -> Iterator[Cluster]:
    """Connect to the cluster at `address`, or start one on this machine.

    Raises:
        InputError: no cluster answers at the address, or it refuses us.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ranks that import torch and DeepSpeed on a busy machine need longer than Ray's minute.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    # Ray Train asks the dashboard's state API whether a controller has died, and without it never
    # gives the placement group of a dead one back. It takes 150 MB.
    local = {"num_cpus": num_cpus, "include_dashboard": True} if address is None else {}
    options = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": _worker_environment(is_local=address is None),
        **local,
    }
    try:
        _connect(options, LOCAL_STARTS if address is None else 1)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        reason = str(error).strip().splitlines()[0]
        raise no_cluster(address, reason) from error
    try:
        if address is not None:
            _await_hosts()
        yield Cluster(
            nodes=_nodes_now(),
            may_become=[] if address is None else _nodes_to_come(),
            is_fixed=address is None,
        )
    finally:
        ray.shutdown()


def _worker_environment(*, is_local: bool) -> dict[str, Any]:
    """What Ray's processes have on each node."""
    variables = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if is_local:
        return {
            "env_vars": variables,
            "worker_process_setup_hook": "orchestrator.trials.worker_start.on_this_machine",
        }
    return {
        "env_vars": {**variables, "OMP_WAIT_POLICY": "PASSIVE", DIGEST_VARIABLE: code_digest()},
        "worker_process_setup_hook": "orchestrator.trials.worker_start.on_cluster",
    }


def _connect(options: dict[str, Any], tries: int) -> None:
    """Ray gives a node of its own 30 s to start, which a busy machine may need more than once."""
    for left in reversed(range(tries)):
        try:
            ray.init(**options)
            return
        except Exception as error:
            if left == 0 or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def _await_hosts() -> None:
    """Return once all hosts of one's own are there, or long enough after they should be.

    Nothing says how large they are before that, and `ray up` returns when the head is.
    """
    launched_with = LAUNCHED_WITH.expanduser()
    provider = read_yaml(launched_with)["provider"] if launched_with.exists() else {}
    if provider.get("type") != "local":
        return
    expected = len(provider.get("worker_ips", [])) + 1
    deadline = time.monotonic() + HOSTS_TIMEOUT_S
    while len(_nodes_now()) < expected and time.monotonic() < deadline:
        time.sleep(1)


def _nodes_now() -> list[NodeShape]:
    return [NodeShape(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]


def _nodes_to_come() -> list[NodeShape]:
    """All nodes that the cluster may have; none where nobody says.

    Some platforms tell Ray; `ray up` leaves its configuration on the head.
    """
    config = ray_state.get_cluster_config()
    if config is None:
        launched_with = LAUNCHED_WITH.expanduser()
        return shapes_of_config(read_yaml(launched_with)) if launched_with.exists() else []
    return [
        NodeShape(dict(group.resources), MANY if group.max_count < 0 else group.max_count)
        for group in config.node_group_configs
    ]
