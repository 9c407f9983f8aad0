"""Sweep whose trials do nothing: `python -m benchmarks.noop RESULT NUM_TRIALS`.

It includes every part of a sweep except the workers: search, queue, Tune, records, MLflow, the
monitor and the report. It writes seconds and memory as JSON.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from benchmarks.idle_jobs import finish_job
from benchmarks.program import run_python
from orchestrator.record.folder import SweepFolder
from orchestrator.trials.job_channel import Job, Progress, StopKind
from orchestrator.trials.trial_driver import TrialDriver
from orchestrator.trials.workers import Workers, WorkerSettings
from trainers.foundation.files import write_json


class NoRanks:
    """Replaces the worker group; every job is done immediately."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._folder = SweepFolder(Path(settings.root))

    def submit(self, job: Job) -> None:
        """Write the files of a finished job."""
        finish_job(self._folder, job)

    def wait(self, seen: Progress, timeout_s: float) -> Progress:
        """Return the progress of a finished job."""
        return Progress(outcome="done", attempts=1)

    def stop(self, kind: StopKind) -> None:
        """Do nothing: no job runs."""

    def close(self, *, wait: bool = True, timeout_s: float = 10) -> None:
        """Do nothing: no resources are held."""


class NoopDriver(TrialDriver):
    """Trial driver whose trials take no time."""

    def setup(self, config: dict[str, Any], settings: WorkerSettings) -> None:
        super().setup(config, settings)
        with Path(settings.root, "drivers.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def _make_workers(self) -> Workers:
        return NoRanks(self._settings)


def noop_spec(
    name: str, num_trials: int, *, resources: dict[str, Any], **search: Any
) -> dict[str, Any]:
    """Return a grid of `num_trials` weights; model/ and data.jsonl are in the working directory."""
    weights = [index / num_trials for index in range(num_trials)]
    return {
        "name": name,
        "model": {"path": "./model"},
        "data": {"path": "data.jsonl", "template": "plain", "max_length": 64,
                 "heldout_examples": 8},
        "schedule": {"steps": 1},
        "deepspeed": {"zero_stage": 1, "precision": "float32"},
        "search": {"space": {"loss.prompt_loss_weight": weights}, **search},
        "resources": resources,
        "evals": {"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None},
    }  # fmt: skip


def main(result: Path, num_trials: int, num_slots: int | None = None) -> None:
    """Run the sweep in the working directory, which must contain model/ and data.jsonl.

    Args:
        num_slots: number of trials that run at once; None for one per core.
    """
    from orchestrator.spec.sweep_spec import load_spec
    from orchestrator.trials.sweep import run_sweep
    from orchestrator.trials.sweep_checks import check_sweep

    spec = noop_spec("noop", num_trials, resources={"max_concurrent_trials": num_slots})
    path = Path("noop.yaml")
    with path.open("w") as file:
        YAML().dump(spec, file)
    loaded = load_spec(path)
    prepared = check_sweep(loaded, address=None)
    started = time.time()
    outcome = run_sweep(loaded, prepared, path, address=None, is_silent=True, driver=NoopDriver)
    ended = time.time()
    assert outcome.num_run == num_trials
    ends = sorted(p.stat().st_mtime for p in Path("runs/noop/trials").glob("*/trial.json"))
    write_json(
        result,
        {
            "trials": num_trials,
            "seconds": ended - started,
            # Time from the end of the first trial to the end of the sweep, when MLflow and the
            # report are complete. It excludes Ray's start.
            "noop_s_per_trial": (ended - ends[0]) / (num_trials - 1),
            "trials_alone_s_per_trial": (ends[-1] - ends[0]) / (num_trials - 1),
            "driver_processes": len(Path("runs/noop/drivers.txt").read_text().splitlines()),
            "driver_memory_bytes": psutil.Process().memory_info().rss,
            "status_s": _seconds_of("status", "runs/noop"),
            "report_s": _seconds_of("report", "runs/noop"),
        },
    )


def _seconds_of(*command: str) -> float:
    started = time.monotonic()
    run_python(["-m", "orchestrator.cli.main", *command])
    return time.monotonic() - started


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
