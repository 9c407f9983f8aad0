"""Warm ranks through Ray Train: one worker group that takes trial after trial.

A fresh worker group spends half a minute on two cores importing torch, transformers and DeepSpeed
before its first step. These ranks import once; each trial gets a new model, a new engine and
freshly seeded generators, and nothing else of the process is part of a trial.
"""

import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from orchestrator.mailbox import Job, Mailbox, Progress
from orchestrator.packages import check_packages
from orchestrator.run_trial import score, train_rank


class WarmRanks:
    """A worker group that waits for jobs; started at the first one, restarted when it is gone."""

    def __init__(
        self,
        *,
        root: Path,
        name: str,
        evals: dict[str, Any],
        num_workers: int,
        cpus_per_worker: int,
        gpus_per_worker: float,
        max_failures: int,
    ) -> None:
        self._root, self._name, self._evals = root, name, evals
        self._num_workers = num_workers
        self._cpus, self._gpus = cpus_per_worker, gpus_per_worker
        self._max_failures = max_failures
        self._mailbox = _new_mailbox()
        self._group: threading.Thread | None = None
        self._num_jobs = 0
        self._has_failed = False

    def give(
        self,
        *,
        kind: Any,
        trial_id: str | None,
        base: str,
        settings: dict[str, Any],
        model_path: str,
    ) -> None:
        """Hand a job to the ranks."""
        if self._has_failed:
            # Ray Train counts a group's failures, we count a job's: so each gets a group anew.
            self.close()
            self._mailbox, self._group, self._has_failed = _new_mailbox(), None, False
        self._num_jobs += 1
        job = Job(self._num_jobs, kind, trial_id, base, settings, model_path)
        ray.get(self._mailbox.give.remote(job))
        if self._group is None or not self._group.is_alive():
            self._group = threading.Thread(target=self._run_group, name=self._name, daemon=True)
            self._group.start()

    def wait(self, seen: dict[str, Any]) -> Progress:
        """The job's progress, once there is more of it than the metrics in `seen`."""
        progress: Progress = ray.get(self._mailbox.wait.remote(seen))
        self._has_failed = progress.error is not None or progress.attempts > 1
        return progress

    def close(self, *, wait: bool = True, timeout_s: float = 10) -> None:
        """Let the ranks go, and with them the resources they hold.

        Args:
            wait: until they are gone, at most `timeout_s`.
        """
        ray.get(self._mailbox.close.remote())
        if self._group is not None and wait:
            self._group.join(timeout_s)

    def _run_group(self) -> None:
        use_gpu = self._gpus > 0
        resources = {"CPU": self._cpus, **({"GPU": self._gpus} if use_gpu else {})}
        trainer = TorchTrainer(
            _rank_loop,
            train_loop_config={
                "root": str(self._root),
                "evals": self._evals,
                "num_threads": self._cpus,
                "mailbox": self._mailbox,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._num_workers, use_gpu=use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                # Ray Train restores a run whose name it knows; ours resume by themselves.
                name=f"{self._name}-{time.time_ns()}",
                storage_path=str(self._root / "ray" / "train"),
                failure_config=FailureConfig(max_failures=self._max_failures),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:
            ray.get(self._mailbox.fail.remote(_reason(error)))


def _new_mailbox() -> Any:
    return Mailbox.remote()  # type: ignore[attr-defined]


def _rank_loop(config: dict[str, Any]) -> None:
    check_packages()
    mailbox, root = config["mailbox"], Path(config["root"])
    rank = ray.train.get_context().get_world_rank()
    number = 0
    while (job := ray.get(mailbox.take.remote(number))) is not None:
        number = job.number
        if rank == 0:
            ray.get(mailbox.begin.remote())
        try:
            _do(job, root, config, rank)
        except BaseException as error:
            ray.get(mailbox.excuse.remote(_reason(error)))
            # The group restarts with fresh processes: whatever broke may have left its traces.
            raise
        if rank == 0:
            ray.get(mailbox.finish.remote(None))


def _do(job: Job, root: Path, config: dict[str, Any], rank: int) -> None:
    mailbox, num_threads = config["mailbox"], config["num_threads"]
    if job.kind == "trial":
        assert job.trial_id is not None
        train_rank(
            root,
            job.trial_id,
            job.settings,
            num_threads,
            on_step=(lambda metrics: mailbox.report.remote(asdict(metrics))) if rank == 0 else None,
        )
    if rank == 0:
        score(
            root,
            job.trial_id,
            job.base,
            job.model_path,
            job.settings,
            config["evals"],
            num_threads,
        )


def _reason(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
