"""Simulate a Ray cluster: one raylet per node on one machine, with any number of GPUs.

Ray's test tool for several nodes, `ray.cluster_utils.Cluster`, starts two Python agents for each
raylet (140 MB and 2.5 s of CPU together). Here only the head has agents. Its runtime environment
agent serves all nodes, and the metrics of the other raylets are lost. This allows 64 nodes on a
small machine.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from orchestrator.trials.placement import DRIVER_RESOURCE

# A raylet exits when its agents exit, and it waits for the files with their ports.
_RAYLET_ALONE = """#!/bin/bash
arguments=()
for one in "$@"; do
    case $one in
        --session_dir=*) session=${{one#*=}} ;;
        --node_id=*) node=${{one#*=}} ;;
        --dashboard_agent_command=* | --runtime_env_agent_command=*)
            one="${{one%%=*}}=tail --pid=$$ -f /dev/null" ;;
    esac
    arguments+=("$one")
done
for name in dashboard_agent_listen metrics_agent metrics_export; do
    echo -n 1 > "$session/${{name}}_port_$node"
done
cp "$session/runtime_env_agent_port_{head}" "$session/runtime_env_agent_port_$node"
exec {raylet} "${{arguments[@]}}"
"""
_STORE_BYTES = 80 * 2**20
_HEAD_STORE_BYTES = 200 * 2**20
_CPUS = 64
# Simulated nodes run no worker processes, so none are started in advance.
_VARIABLES = {
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Nodes that share two cores answer health checks late.
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "20",
}


@contextmanager
def simulated_cluster(num_nodes: int, gpus_per_node: int) -> Iterator[Any]:
    """Start a head that runs only drivers, and `num_nodes` raylets with simulated GPUs.

    Yields Ray's `Cluster`.
    """
    with patch.dict(os.environ, _VARIABLES), tempfile.TemporaryDirectory() as folder:
        from ray._private import services
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "resources": {DRIVER_RESOURCE: 1000},
                "object_store_memory": _HEAD_STORE_BYTES,
                "include_dashboard": False,
            },
        )
        alone = Path(folder) / "raylet"
        alone.write_text(
            _RAYLET_ALONE.format(raylet=services.RAYLET_EXECUTABLE, head=cluster.head_node.node_id)
        )
        alone.chmod(0o755)
        try:
            with patch.object(services, "RAYLET_EXECUTABLE", str(alone)):
                for _ in range(num_nodes):
                    cluster.add_node(
                        wait=False,
                        num_cpus=_CPUS,
                        num_gpus=gpus_per_node,
                        object_store_memory=_STORE_BYTES,
                    )
            cluster.wait_for_nodes(timeout=120)
            yield cluster
        finally:
            cluster.shutdown()
