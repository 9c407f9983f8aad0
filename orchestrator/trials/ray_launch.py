"""Warm ranks on Ray Train: one worker group that trains one trial after another.

A new worker group spends half a minute on two cores importing torch, transformers and DeepSpeed
before its first step. Warm ranks import once. Each trial gets a new model, a new engine and newly
seeded generators; it uses no other state of the process. After any fault, new processes replace the
group.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.record.remote_sweep import RemoteSweep
from orchestrator.trials.job_channel import Job, JobChannel, Progress, StopKind
from orchestrator.trials.nodes import check_gpu, check_node
from orchestrator.trials.rank_group import RankGroup
from orchestrator.trials.run_trial import (
    error_reason,
    failure_kind,
    help_to_score,
    is_node_lost,
    score,
    train_rank,
)
from orchestrator.trials.workers import WorkerSettings


class WarmRanks:
    """A worker group that waits for jobs.

    It starts with the first job and restarts after a failure.
    """

    def __init__(self, name: str, settings: WorkerSettings) -> None:
        self._name, self._settings = name, settings
        # Run on the driver's node, because drivers do not run on nodes that come and go.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._channel = JobChannel.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self._group: threading.Thread | None = None
        self._num_jobs = 0

    def submit(self, job: Job) -> None:
        """Submit a job to the ranks."""
        self._num_jobs += 1
        ray.get(self._channel.submit.remote(replace(job, number=self._num_jobs)))
        if self._group is None or not self._group.is_alive():
            self._group = threading.Thread(target=self._run_group, name=self._name, daemon=True)
            self._group.start()

    def wait(self, seen: Progress, timeout_s: float) -> Progress:
        """Return the job's progress once it is ahead of `seen`, or after `timeout_s`."""
        progress: Progress = ray.get(
            self._channel.wait_for_progress.remote(
                seen.metrics, seen.attempts, len(seen.heldout), timeout_s
            )
        )
        return progress

    def stop(self, kind: StopKind) -> None:
        """Ask the ranks to end the current job at their next step."""
        ray.get(self._channel.stop.remote(kind))

    def close(self, *, wait: bool = True, timeout_s: float = 10) -> None:
        """Release the ranks and their resources.

        Args:
            wait: wait until the ranks have ended, at most `timeout_s`.
        """
        ray.get(self._channel.close.remote())
        if self._group is not None and wait:
            self._group.join(timeout_s)

    @staticmethod
    def rank_loop(config: dict[str, Any]) -> None:
        """Do one job after another, in each rank, until the channel is closed."""
        channel = config["channel"]
        rank = ray.train.get_context().get_world_rank()
        number = 0
        is_checked = False
        while (job := ray.get(channel.next_job.remote(number))) is not None:
            number = job.number
            if rank == 0:
                ray.get(channel.start_attempt.remote())
            try:
                if not is_checked:
                    check_node(Path(config["root"]), config["storage_uri"])
                    check_gpu()
                    _select_gpu()
                    is_checked = True
                is_complete = _run_job(job, config, rank)
            except BaseException as error:
                ray.get(channel.report_failure.remote(error_reason(error), failure_kind(error)))
                # Let the group restart with new processes, because the failure may have corrupted
                # these.
                raise
            if rank == 0:
                ray.get(channel.finish.remote("done" if is_complete else "stopped"))

    def backend_config(self) -> BackendConfig:
        """Return how Ray Train connects the ranks before their loop starts."""
        return RankGroup(backend="nccl" if self._settings.gpus_per_worker > 0 else "gloo")

    def _run_group(self) -> None:
        """Run one worker group after another until all jobs are done or one has failed."""
        while True:
            try:
                self._trainer().fit()
                return
            except Exception as error:
                retry = self._channel.handle_group_failure.remote(
                    error_reason(error), self._settings.retries, is_node_lost=is_node_lost(error)
                )
                if not ray.get(retry):
                    return

    def _trainer(self) -> DataParallelTrainer:
        settings = self._settings
        use_gpu = settings.gpus_per_worker > 0
        resources: dict[str, float] = {"CPU": settings.cpus_per_worker}
        if use_gpu:
            resources["GPU"] = settings.gpus_per_worker
        return DataParallelTrainer(
            self.rank_loop,
            train_loop_config={
                "root": settings.root,
                "evals": settings.evals,
                "num_threads": settings.cpus_per_worker,
                "channel": self._channel,
                "storage_uri": settings.storage_uri,
            },
            backend_config=self.backend_config(),
            scaling_config=ScalingConfig(
                num_workers=settings.num_workers,
                use_gpu=use_gpu,
                resources_per_worker=resources,
                placement_strategy="STRICT_PACK" if settings.is_packed else "PACK",
            ),
            run_config=RunConfig(
                # A unique name, because Ray Train would restore a run with a known name.
                name=f"{self._name}-{time.time_ns()}",
                storage_path=str(Path(settings.root) / "ray" / "train"),
                # Ray counts the failures of a group; we count those of a job, by kind.
                failure_config=FailureConfig(max_failures=0),
            ),
        )


def _select_gpu() -> None:
    """Make the GPU that Ray assigned to this rank, if any, torch's current device."""
    if ray.get_gpu_ids():
        import torch
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())


def _run_job(job: Job, config: dict[str, Any], rank: int) -> bool:
    """Run this rank's part of the job; return False if it was stopped early."""
    channel, num_threads, root = config["channel"], config["num_threads"], Path(config["root"])
    stored = RemoteSweep(root, config["storage_uri"]) if config["storage_uri"] else None
    if stored is not None:
        stored.download_inputs(job.base, job.settings, job.model_path)
    if job.kind in ("trial", "training"):
        is_complete = train_rank(
            root,
            job.key,
            job.settings,
            num_threads,
            on_step=(lambda metrics: channel.report.remote(asdict(metrics))) if rank == 0 else None,
            get_stop_request=_stop_request(channel, job) if rank == 0 else None,
            store=stored.trial_store(job.key) if stored is not None else None,
        )
        if not is_complete:
            return False
    if job.kind != "training":
        _score(job, config, rank, stored)
    if rank == 0 and stored is not None:
        stored.upload(job.scored, job.key)
    if stored is not None and (rank == 0 or job.kind != "training"):
        stored.remove_local_model(job.key)
    return True


def _score(job: Job, config: dict[str, Any], rank: int, stored: RemoteSweep | None) -> None:
    """Score the model of a job on rank 0; the other ranks do a share of its work."""
    root, evals, num_threads = Path(config["root"]), config["evals"], config["num_threads"]
    if stored is not None and job.scored == "trial":
        stored.download_model(job.key)
    if rank > 0:
        help_to_score(root, job.scored, job.key, job.model_path, job.settings, evals, num_threads)
        return
    if stored is not None and job.opponent is not None:
        stored.download_outputs(job.opponent)
    score(
        root,
        job.scored,
        job.key,
        job.base,
        job.model_path,
        job.settings,
        evals,
        num_threads,
        opponent=job.opponent,
        on_all_ranks=True,
    )


def _stop_request(channel: Any, job: Job) -> Callable[[], StopKind | None]:
    """Return a function that reads the stop request, if any, within microseconds."""
    answer = channel.stop_request.remote(job.number)

    def request_now() -> StopKind | None:
        ready, _ = ray.wait([answer], timeout=0)
        request: StopKind | None = ray.get(answer) if ready else None
        return request

    return request_now
