"""A separate Ray node on this machine."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PROGRAM = """
import sys, ray
from orchestrator.trials.ray_cluster import ray_cluster
with ray_cluster(None, num_cpus=int(sys.argv[1])):
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class RayNode:
    pid: int
    address: str


@contextmanager
def ray_node(num_cpus: int) -> Iterator[RayNode]:
    """Run a Ray node that reports `num_cpus` cores, independent of the machine."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(num_cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the node did not start"
        yield RayNode(process.pid, address)
        process.communicate("")
