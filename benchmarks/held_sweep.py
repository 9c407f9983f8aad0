"""Sweep whose trials only hold GPUs: `python -m benchmarks.held_sweep JOB RESULT`.

All but the ranks is that of a normal sweep (benchmarks/idle_ranks.py). A trial has one rank on each
of its nodes, which holds all GPUs that the trial has there. RESULT contains the times at which each
trial held its GPUs, and the memory and CPU time of the head's processes.
"""

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import ray
from ruamel.yaml import YAML

from benchmarks.idle_ranks import HELD, SPREAD, IdleRanks
from benchmarks.noop import noop_spec
from benchmarks.simulated_cluster import simulated_cluster
from orchestrator.foundation.periodic import run_periodically
from orchestrator.trials import sweep
from orchestrator.trials.sweep_checks import check_sweep
from orchestrator.trials.trial_driver import TrialDriver
from orchestrator.trials.workers import Workers
from trainers.foundation.files import read_json, write_json

SAMPLE_EVERY_S = 5.0
# Parts of the head's memory by the names that Ray gives to processes; the others are Ray's own.
PARTS = {
    "ray::ResourceTrainable": "drivers",
    "ray::JobChannel": "channels",
    "ray::TrainController": "controllers",
    "ray::": "other_actors",
}


class HoldingDriver(TrialDriver):
    """Trial driver whose ranks train nothing."""

    def _make_workers(self) -> Workers:
        return IdleRanks(f"ranks-{os.getpid()}", self._settings)


class HeadSamples:
    """Samples of the memory and CPU time of the head's processes, by part of the head.

    `ray` are Ray's processes, `sweep` is the process that runs the sweep; PARTS has the others.
    Shared memory, such as libraries, is counted once (Linux's proportional set size).
    """

    def __init__(self, head_pids: set[int]) -> None:
        self._head_pids = head_pids
        self.taken: list[dict[str, Any]] = []

    def take(self) -> None:
        """Add a sample of the processes."""
        self.taken.append(self._sample())

    def _sample(self) -> dict[str, Any]:
        memory = dict.fromkeys(("ray", "sweep", *PARTS.values()), 0)
        cpu = dict.fromkeys(("gcs", *memory), 0.0)
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                name, of = process.name(), self._part(process)
                if of is not None:
                    memory[of] += process.memory_full_info().pss
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            if of is not None:
                cpu["gcs" if name == "gcs_server" else of] += times.user + times.system
        parts = {part: size / 2**20 for part, size in memory.items()}
        return {"time": time.time(), "memory_mb": parts, "cpu_s": cpu, "load": os.getloadavg()[0]}

    def _part(self, process: psutil.Process) -> str | None:
        """Return the part of the head that a process belongs to; None on a simulated node."""
        if process.pid == os.getpid():
            return "sweep"
        ancestors = {process.pid, *(one.pid for one in process.parents())}
        if not ancestors & self._head_pids:
            return None
        name = process.name()
        if "Agent" in name:
            return "ray"
        return next((part for prefix, part in PARTS.items() if name.startswith(prefix)), "ray")


def spec_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return a spec with more trials than can finish within its time budget."""
    num_slots = job["nodes"] * job["gpus_per_node"] // job["gpus_per_trial"]
    shortest_s = job["seconds"] * (1 - SPREAD)
    num_trials = int(num_slots * (job["minutes"] * 60 / shortest_s + 2))
    gpus_of_rank = min(job["gpus_per_node"], job["gpus_per_trial"])
    return noop_spec(
        "scale",
        num_trials,
        resources={
            "workers_per_trial": job["gpus_per_trial"] // gpus_of_rank,
            "gpus_per_worker": gpus_of_rank,
            "scorers": 0,
        },
        budget={"hours": job["minutes"] / 60},
    )


def main(job: dict[str, Any], result: Path) -> None:
    """Run the sweep in the working directory, which must contain model/, data.jsonl, job.json."""
    from orchestrator.spec.sweep_spec import load_spec

    path = Path("scale.yaml")
    with path.open("w") as file:
        YAML().dump(spec_of(job), file)
    with ExitStack() as stack:
        # check_nodes would import torch in a process for each node, all of them on this machine.
        stack.enter_context(patch("orchestrator.trials.sweep.check_nodes"))
        cluster = stack.enter_context(simulated_cluster(job["nodes"], job["gpus_per_node"]))
        head = {info.process.pid for kind in cluster.head_node.all_processes.values()
                for info in kind}  # fmt: skip
        spec = load_spec(path)
        prepared = check_sweep(spec, address=cluster.address)
        samples = HeadSamples(head)
        with run_periodically(SAMPLE_EVERY_S, samples.take, name="samples"):
            began = time.time()
            outcome = sweep.run_sweep(
                spec, prepared, path, address=cluster.address, is_silent=True, driver=HoldingDriver
            )
            ended = time.time()
        alive = sum(node["Alive"] for node in cluster.global_state.node_table())
    trials = [read_json(one) for one in sorted(Path("runs/scale/trials").glob(f"*/{HELD}"))]
    write_json(
        result,
        {"job": job, "began": began, "ended": ended, "trials": trials, "samples": samples.taken,
         "num_failed": outcome.num_failed, "end_reason": outcome.end_reason,
         "nodes_alive": alive - 1, "ray": ray.__version__},
    )  # fmt: skip


if __name__ == "__main__":
    main(read_json(Path(sys.argv[1])), Path(sys.argv[2]).absolute())
