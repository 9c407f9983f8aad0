"""Warm ranks through Ray Train: one worker group that takes trial after trial.

A fresh worker group spends half a minute on two cores importing torch, transformers and DeepSpeed
before its first step. These ranks import once; each trial gets a new model, a new engine and
freshly seeded generators, and nothing else of the process is part of a trial. After any fault the
group is replaced by fresh processes.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.record.stored_sweep import StoredSweep
from orchestrator.trials.mailbox import Job, Mailbox, Progress, StopKind
from orchestrator.trials.nodes import check_node
from orchestrator.trials.run_trial import JobKind, failure_kind, reason_of, score, train_rank


@dataclass(frozen=True)
class RankSettings:
    """What a worker group is and does, the same for all of its jobs."""

    root: str
    evals: dict[str, Any]
    num_workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    retries: dict[str, int]
    stored_at: str | None = None


class WarmRanks:
    """A worker group that waits for jobs; started at the first one, restarted when it is gone."""

    def __init__(self, name: str, settings: RankSettings) -> None:
        self._name, self._settings = name, settings
        # Beside its driver, which is kept off nodes that come and go.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self._group: threading.Thread | None = None
        self._num_jobs = 0

    def give(
        self, *, kind: JobKind, key: str, base: str, settings: dict[str, Any], model_path: str
    ) -> None:
        """Hand a job to the ranks."""
        self._num_jobs += 1
        job = Job(self._num_jobs, kind, key, base, settings, model_path)
        ray.get(self._mailbox.give.remote(job))
        if self._group is None or not self._group.is_alive():
            self._group = threading.Thread(target=self._run_group, name=self._name, daemon=True)
            self._group.start()

    def wait(self, seen: Progress, timeout_s: float) -> Progress:
        """The job's progress, once there is more of it than in `seen` or after `timeout_s`."""
        progress: Progress = ray.get(
            self._mailbox.wait.remote(seen.metrics, seen.attempts, len(seen.heldout), timeout_s)
        )
        return progress

    def stop(self, kind: StopKind) -> None:
        """Ask the ranks to end the current job at their next step."""
        ray.get(self._mailbox.stop.remote(kind))

    def close(self, *, wait: bool = True, timeout_s: float = 10) -> None:
        """Let the ranks go, and with them the resources they hold.

        Args:
            wait: until they are gone, at most `timeout_s`.
        """
        ray.get(self._mailbox.close.remote())
        if self._group is not None and wait:
            self._group.join(timeout_s)

    def _run_group(self) -> None:
        """Run worker groups, one after another, until the jobs are done or one has failed."""
        while True:
            try:
                self._trainer().fit()
                return
            except Exception as error:
                verdict = self._mailbox.group_died.remote(reason_of(error), self._settings.retries)
                if not ray.get(verdict):
                    return

    def _trainer(self) -> TorchTrainer:
        settings = self._settings
        use_gpu = settings.gpus_per_worker > 0
        resources: dict[str, float] = {"CPU": settings.cpus_per_worker}
        if use_gpu:
            resources["GPU"] = settings.gpus_per_worker
        return TorchTrainer(
            _rank_loop,
            train_loop_config={
                "root": settings.root,
                "evals": settings.evals,
                "num_threads": settings.cpus_per_worker,
                "mailbox": self._mailbox,
                "stored_at": settings.stored_at,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=settings.num_workers, use_gpu=use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                # Ray Train restores a run whose name it knows; ours resume by themselves.
                name=f"{self._name}-{time.time_ns()}",
                storage_path=str(Path(settings.root) / "ray" / "train"),
                # It counts a group's failures, we count a job's, by kind.
                failure_config=FailureConfig(max_failures=0),
            ),
        )


def _rank_loop(config: dict[str, Any]) -> None:
    mailbox = config["mailbox"]
    rank = ray.train.get_context().get_world_rank()
    number = 0
    is_checked = False
    while (job := ray.get(mailbox.take.remote(number))) is not None:
        number = job.number
        if rank == 0:
            ray.get(mailbox.begin.remote())
        try:
            if not is_checked:
                check_node(Path(config["root"]), config["stored_at"])
                is_checked = True
            is_complete = _do(job, config, rank)
        except BaseException as error:
            ray.get(mailbox.excuse.remote(reason_of(error), failure_kind(error)))
            # The group restarts with fresh processes: whatever broke may have left its traces.
            raise
        if rank == 0:
            ray.get(mailbox.finish.remote("done" if is_complete else "stopped"))


def _do(job: Job, config: dict[str, Any], rank: int) -> bool:
    """Do the job, or this rank's part of it; False if it was stopped early."""
    mailbox, num_threads, root = config["mailbox"], config["num_threads"], Path(config["root"])
    stored = StoredSweep(root, config["stored_at"]) if config["stored_at"] else None
    if stored is not None:
        stored.bring(job.base, job.settings, job.model_path)
    if job.kind in ("trial", "training"):
        is_complete = train_rank(
            root,
            job.key,
            job.settings,
            num_threads,
            on_step=(lambda metrics: mailbox.report.remote(asdict(metrics))) if rank == 0 else None,
            should_stop=_stop_wish(mailbox, job) if rank == 0 else None,
            store=stored.of_trial(job.key) if stored is not None else None,
        )
        if not is_complete:
            return False
    if rank == 0 and job.kind != "training":
        of: Literal["trial", "base"] = "base" if job.kind == "base" else "trial"
        evals = config["evals"]
        if stored is not None and of == "trial":
            stored.bring_model(job.key)
        score(root, of, job.key, job.base, job.model_path, job.settings, evals, num_threads)
    if rank == 0 and stored is not None:
        stored.keep("base" if job.kind == "base" else "trial", job.key)
        stored.drop_model(job.key)
    return True


def _stop_wish(mailbox: Any, job: Job) -> Callable[[], StopKind | None]:
    """A question that costs microseconds, since the answer is pushed to this process."""
    answer = mailbox.stop_wish.remote(job.number)

    def ask() -> StopKind | None:
        ready, _ = ray.wait([answer], timeout=0)
        wish: StopKind | None = ray.get(answer) if ready else None
        return wish

    return ask
