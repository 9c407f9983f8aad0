"""Worker groups whose ranks train nothing, for sweeps on a simulated cluster.

Everything on the head is that of a normal sweep: drivers, job channels, and Ray Train's controllers
and cleaners. Only the ranks differ: each waits for the next job like a rank of a normal sweep, but
imports no torch and computes nothing.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.backend import BackendConfig

from benchmarks.idle_jobs import METRICS, finish_job
from orchestrator.record.folder import SweepFolder
from orchestrator.trials.job_channel import Job
from orchestrator.trials.ray_launch import WarmRanks
from trainers.foundation.files import read_json, write_json

REPORT_EVERY_S = 5.0
# Relative spread of the trials' durations. Trials of equal duration would all end at once.
SPREAD = 0.2
HELD = "held.json"
JOB = "job.json"


class IdleRanks(WarmRanks):
    """Warm ranks that hold their GPUs for about the time given in JOB, and report."""

    @staticmethod
    def rank_loop(config: dict[str, Any]) -> None:
        """Do one job after another; all but the first rank only wait."""
        channel, number = config["channel"], 0
        while (job := ray.get(channel.next_job.remote(number))) is not None:
            number = job.number
            if ray.train.get_context().get_world_rank() == 0:
                ray.get(channel.start_attempt.remote())
                _hold(job, channel, Path(config["root"]))
                ray.get(channel.finish.remote("done"))

    def backend_config(self) -> BackendConfig:
        """Return the configuration of ranks that are not connected."""
        return BackendConfig()


def held_s(trial_id: str, seconds: float) -> float:
    """Return the time in seconds for which a trial holds its GPUs.

    It is derived from the trial's id; the mean over trials is `seconds`.
    """
    place = int(hashlib.sha256(trial_id.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return seconds * (1 - SPREAD + 2 * SPREAD * place)


def _hold(job: Job, channel: Any, root: Path) -> None:
    """Hold the GPUs of a job; the scoring of an untuned baseline takes no time."""
    folder = SweepFolder(root)
    if job.kind != "base":
        held = time.time()
        until = held + held_s(job.key, read_json(root.parents[1] / JOB)["seconds"])
        step = 0
        while (left := until - time.time()) > 0:
            time.sleep(min(left, REPORT_EVERY_S))
            step += 1
            line = {**METRICS, "step": step, "time": time.time()}
            with folder.metrics(job.key).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            channel.report.remote(line)
        times = {"group": os.getpid(), "held": held, "released": time.time()}
        write_json(folder.trial(job.key) / HELD, times)
    finish_job(folder, job)
