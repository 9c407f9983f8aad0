"""Sweep whose trials only hold GPUs: `python -m benchmarks.held_sweep JOB RESULT`.

Search, queue, Tune, drivers, records, MLflow and the report are those of a normal sweep. Each
trial's driver holds a placement group instead of a worker group. The placement group has the same
GPUs and is held for about the time given in JOB. RESULT contains the times at which each trial held
its GPUs, and the memory and CPU time of the head's processes.
"""

import hashlib
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ruamel.yaml import YAML

from benchmarks.noop import METRICS, NoRanks, noop_spec
from benchmarks.simulated_cluster import simulated_cluster
from orchestrator.foundation.periodic import run_periodically
from orchestrator.trials import sweep
from orchestrator.trials.job_channel import Job, Progress
from orchestrator.trials.sweep_checks import check_sweep
from orchestrator.trials.trial_driver import TrialDriver
from orchestrator.trials.workers import Workers, WorkerSettings
from trainers.foundation.files import read_json, write_json

REPORT_EVERY_S = 5.0
SAMPLE_EVERY_S = 5.0
# Relative spread of the trials' durations. Trials of equal duration would all end at once.
SPREAD = 0.2
HELD = "held.json"
JOB = "job.json"


class HeldGpus(NoRanks):
    """Replaces the worker group by a placement group without processes."""

    def __init__(self, settings: WorkerSettings, seconds: float) -> None:
        super().__init__(settings)
        self._seconds = seconds
        self._bundle = {"CPU": float(settings.cpus_per_worker), "GPU": settings.gpus_per_worker}
        self._num_bundles = settings.num_workers
        self._group: PlacementGroup | None = None

    def submit(self, job: Job) -> None:
        """Request the GPUs of a trial; the scoring of an untuned baseline needs none."""
        self._job = job
        self._attempts = 0
        self._asked = self._held = time.time()
        if job.kind != "base":
            self._group = placement_group([self._bundle] * self._num_bundles)

    def wait(self, seen: Progress, timeout_s: float) -> Progress:
        """Return the trial's progress: waiting for its GPUs, holding them, or done."""
        if self._group is None:
            return self._finish()
        if self._attempts == 0:
            if self._group.wait(timeout_s):
                self._held, self._attempts, self._reported = time.time(), 1, 0.0
            return Progress(attempts=self._attempts)
        left = self._held + held_s(self._job.key, self._seconds) - time.time()
        if left > 0:
            time.sleep(min(left, timeout_s))
            self._report()
            return Progress(attempts=1)
        remove_placement_group(self._group)
        self._group = None
        held = {"asked": self._asked, "held": self._held, "released": time.time()}
        place = self._folder.trial(self._job.key)
        write_json(place / HELD, {**held, "driver": os.getpid()})
        return self._finish()

    def _report(self) -> None:
        if time.time() - self._reported < REPORT_EVERY_S:
            return
        self._reported = time.time()
        step = int((self._reported - self._held) / REPORT_EVERY_S) + 1
        line = {**METRICS, "step": step, "time": self._reported}
        with (self._folder.metrics(self._job.key)).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _finish(self) -> Progress:
        super().submit(self._job)
        return Progress(outcome="done", attempts=1)


class HoldingDriver(TrialDriver):
    """Trial driver whose trials only hold GPUs."""

    def _make_workers(self) -> Workers:
        seconds = read_json(Path(self._settings.root).parents[1] / JOB)["seconds"]
        return HeldGpus(self._settings, seconds)


def held_s(trial_id: str, seconds: float) -> float:
    """Return the time in seconds for which a trial holds its GPUs.

    It is derived from the trial's id; the mean over trials is `seconds`.
    """
    place = int(hashlib.sha256(trial_id.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return seconds * (1 - SPREAD + 2 * SPREAD * place)


class HeadSamples:
    """Samples of the memory and CPU time of the head's processes.

    `ray` are Ray's processes, `sweep` is the process that runs the sweep, `drivers` are the trials'
    drivers. Shared memory, such as libraries, is counted once (Linux's proportional set size).
    """

    def __init__(self, head_pids: set[int]) -> None:
        self._head_pids = head_pids
        self.taken: list[dict[str, Any]] = []

    def take(self) -> None:
        """Add a sample of the processes."""
        self.taken.append(self._sample())

    def _sample(self) -> dict[str, Any]:
        memory = {"ray": 0, "sweep": 0, "drivers": 0}
        cpu = {"gcs": 0.0, "sweep": 0.0}
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                name, of = process.name(), self._part(process)
                if of is not None:
                    memory[of] += process.memory_full_info().pss
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            if of == "sweep" or name == "gcs_server":
                cpu["sweep" if of == "sweep" else "gcs"] += times.user + times.system
        parts = {part: size / 2**20 for part, size in memory.items()}
        return {"time": time.time(), "memory_mb": parts, "cpu_s": cpu, "load": os.getloadavg()[0]}

    def _part(self, process: psutil.Process) -> str | None:
        """Return the part of the head that a process belongs to; None on a simulated node."""
        if process.pid == os.getpid():
            return "sweep"
        ancestors = {process.pid, *(one.pid for one in process.parents())}
        if not ancestors & self._head_pids:
            return None
        is_driver = process.name().startswith("ray::") and "Agent" not in process.name()
        return "drivers" if is_driver else "ray"


def spec_of(job: dict[str, Any]) -> dict[str, Any]:
    """Return a spec with more trials than can finish within its time budget."""
    num_slots = job["nodes"] * job["gpus_per_node"] // job["gpus_per_trial"]
    shortest_s = job["seconds"] * (1 - SPREAD)
    num_trials = int(num_slots * (job["minutes"] * 60 / shortest_s + 2))
    return noop_spec(
        "scale",
        num_trials,
        resources={"workers_per_trial": job["gpus_per_trial"], "gpus_per_worker": 1, "scorers": 0},
        budget={"hours": job["minutes"] / 60},
    )


def main(job: dict[str, Any], result: Path) -> None:
    """Run the sweep in the working directory, which must contain model/, data.jsonl, job.json."""
    from orchestrator.spec.sweep_spec import load_spec

    path = Path("scale.yaml")
    with path.open("w") as file:
        YAML().dump(spec_of(job), file)
    with ExitStack() as stack:
        # check_nodes would start a process on each simulated node.
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
