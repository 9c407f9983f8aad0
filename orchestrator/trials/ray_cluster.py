"""Connect to the Ray cluster of a sweep, or start one, and list its nodes."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, worker
from ray._private.state import state as ray_state

from orchestrator.foundation.packages import code_digest
from orchestrator.foundation.periodic import run_periodically
from orchestrator.trials.nodes import DIGEST_VARIABLE
from orchestrator.trials.placement import MANY, Cluster, NodeShape, node_shapes
from orchestrator.trials.ray_address import no_cluster, shorten_temp_dir
from orchestrator.trials.supervision import (
    CONTROL_STORE_DIED,
    DASHBOARD_DIED,
    NODE_PROCESS_DIED,
)
from trainers.foundation.settings_file import read_yaml

LOCAL_STARTS = 3
RAY_CHECK_S = 1.0
# Without the dashboard, Ray Train does not release the resources of a dead controller.
_EXIT_CODES = {
    ray_constants.PROCESS_TYPE_GCS_SERVER: CONTROL_STORE_DIED,
    ray_constants.PROCESS_TYPE_RAYLET: NODE_PROCESS_DIED,
    ray_constants.PROCESS_TYPE_DASHBOARD: DASHBOARD_DIED,
}
HOSTS_TIMEOUT_S = 300.0
# `ray up` writes its configuration to this file on the head.
LAUNCHED_WITH = Path("~/ray_bootstrap_config.yaml")


@contextmanager
def ray_cluster(address: str | None, num_cpus: int) -> Iterator[Cluster]:
    """Connect to the cluster at `address`; without an address, start one on this machine.

    Raises:
        InputError: no cluster answers at the address, or it refuses the connection.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # On a busy machine, ranks need longer than Ray's 60 s to import torch and DeepSpeed.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    # Ray Train uses the dashboard's state API to detect dead controllers. Without it, their
    # placement groups are never released. The dashboard takes 150 MB.
    local = {"num_cpus": num_cpus, "include_dashboard": True} if address is None else {}
    if address is None:
        shorten_temp_dir()
    options = {
        "address": address or "local",
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": _worker_environment(is_local=address is None),
        **local,
    }
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        _connect(options, LOCAL_STARTS if address is None else 1)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        reason = str(error).strip().splitlines()[0]
        raise no_cluster(address, reason) from error
    if on_sigterm != signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        # ray.init replaces the handler by one that exits at once.
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        if address is not None:
            _wait_for_hosts()
        with run_periodically(RAY_CHECK_S, _end_with_ray, name="ray-check"):
            yield Cluster(
                nodes=_current_nodes(),
                future_nodes=[] if address is None else _future_nodes(),
                is_fixed=address is None,
            )
    finally:
        ray.shutdown()


def _end_with_ray() -> None:
    """End this process if a process of Ray that it started has died, without which trials hang.

    With an existing cluster, this process has started none.
    """
    node = worker._global_node
    dead = dict(node.dead_processes()) if node is not None else {}
    # In this order, because the others may die with the control store.
    for kind, code in _EXIT_CODES.items():
        if kind in dead:
            print(f"Ray's process {kind} ended with {dead[kind].returncode}; ending", flush=True)
            # Ray's own shutdown could wait for the dead process.
            os._exit(code)


def _worker_environment(*, is_local: bool) -> dict[str, Any]:
    """Return the runtime environment of Ray's processes on each node."""
    variables = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
        "TOKENIZERS_PARALLELISM": "false",
        # Hide the GPUs from processes without an assigned one; Ray does not by default.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    }
    if is_local:
        # Ray Train would start a process of 120 MB for each worker group, which waits for a cloud
        # to take back its node.
        variables["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
        return {
            "env_vars": variables,
            "worker_process_setup_hook": "orchestrator.trials.worker_start.set_up_local_worker",
        }
    return {
        "env_vars": {**variables, "OMP_WAIT_POLICY": "PASSIVE", DIGEST_VARIABLE: code_digest()},
        "worker_process_setup_hook": "orchestrator.trials.worker_start.set_up_cluster_worker",
    }


def _connect(options: dict[str, Any], tries: int) -> None:
    """Connect to Ray; retry a local start that takes longer than Ray's limit of 30 s."""
    for left in reversed(range(tries)):
        try:
            ray.init(**options)
            return
        except Exception as error:
            if left == 0 or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def _wait_for_hosts() -> None:
    """Wait until all on-premise hosts have joined, at most HOSTS_TIMEOUT_S.

    `ray up` returns when the head is ready, and the size of a host is unknown until it joins.
    """
    launched_with = LAUNCHED_WITH.expanduser()
    provider = read_yaml(launched_with)["provider"] if launched_with.exists() else {}
    if provider.get("type") != "local":
        return
    expected = len(provider.get("worker_ips", [])) + 1
    deadline = time.monotonic() + HOSTS_TIMEOUT_S
    while len(_current_nodes()) < expected and time.monotonic() < deadline:
        time.sleep(1)


def _current_nodes() -> list[NodeShape]:
    return [NodeShape(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]


def _future_nodes() -> list[NodeShape]:
    """Return all nodes that the cluster can have; empty if unknown.

    Some platforms report the nodes to Ray; `ray up` leaves its configuration on the head.
    """
    config = ray_state.get_cluster_config()
    if config is None:
        launched_with = LAUNCHED_WITH.expanduser()
        return node_shapes(read_yaml(launched_with)) if launched_with.exists() else []
    return [
        NodeShape(dict(group.resources), MANY if group.max_count < 0 else group.max_count)
        for group in config.node_group_configs
    ]
