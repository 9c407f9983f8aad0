"""Channel between a trial's driver and its warm ranks: one job at a time, and its progress.

A job stays current until it is finished, so ranks that restart after a crash receive it again and
resume from its last checkpoint.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import ray

from orchestrator.trials.run_trial import JobKind

# `checkpoint` writes a checkpoint to resume from, `discard` does not.
StopKind = Literal["checkpoint", "discard"]
Outcome = Literal["done", "failed", "stopped"]

# Maximum number of retries of a worker group that dies before its ranks start the job.
START_FAILURES = 2
# Maximum number of lost nodes in a row between which a job logs no new step. A trial on spot
# instances may lose any number of nodes as long as it advances.
LOST_NODES_WITHOUT_STEP = 3


@dataclass(frozen=True)
class Job:
    """A job for trial `key` or baseline `key`.

    `base` is the key of the baseline whose held-out examples are scored; `opponent` as in
    `TrialRecord`. Ranks distinguish jobs by `number`.
    """

    kind: JobKind
    key: str
    base: str
    settings: dict[str, Any]
    model_path: str
    opponent: str | None = None
    number: int = 0

    @property
    def scored(self) -> Literal["trial", "base"]:
        """What the job scores, if it scores: a trial's model or a baseline's."""
        return "base" if self.kind == "base" else "trial"


@dataclass
class Progress:
    """State of a job.

    `heldout` contains (step, held-out completion loss), in order. `attempts` is 0 until a process
    starts. `error` is the reason of the last failure, `failure` its kind; `num_failures` have been
    followed by a retry or by the end of the job.
    """

    outcome: Outcome | None = None
    error: str | None = None
    failure: str | None = None
    attempts: int = 0
    num_failures: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    heldout: list[tuple[int, float]] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return self.outcome is not None


@ray.remote(num_cpus=0, max_concurrency=10_000)
class JobChannel:
    """Asynchronous actor on which all ranks can wait at once without polling."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._progress = Progress(outcome="done")
        self._failures: Counter[str] = Counter()
        self._last_step = self._step_at_loss = 0
        self._failure: tuple[str, str] | None = None
        self._failed_attempt = 0
        self._stop: StopKind | None = None
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def submit(self, job: Job) -> None:
        """Submit the next job to the ranks; the previous one must be finished."""
        assert self._progress.is_finished
        self._job, self._progress = job, Progress()
        self._failures.clear()
        self._last_step = self._step_at_loss = 0
        self._failure, self._failed_attempt, self._stop = None, 0, None
        await self._notify()

    async def next_job(self, after: int) -> Job | None:
        """Wait for a job numbered above `after` and return it; None once the channel is closed."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    self._is_closed
                    or (
                        self._job is not None
                        and self._job.number > after
                        and not self._progress.is_finished
                    )
                )
            )
        return None if self._is_closed else self._job

    async def start_attempt(self) -> None:
        """Count an attempt at the current job: the first one, or a restart of its ranks."""
        self._progress.attempts += 1
        await self._notify()

    async def report(self, metrics: dict[str, Any]) -> None:
        """Record the latest metrics of the current job, and each held-out loss."""
        self._progress.metrics = metrics
        self._last_step = max(self._last_step, metrics.get("step", 0))
        loss = metrics.get("heldout_completion_loss")
        if loss is not None:
            # A resumed run repeats measurements of the interrupted one.
            earlier = [entry for entry in self._progress.heldout if entry[0] < metrics["step"]]
            self._progress.heldout = [*earlier, (metrics["step"], loss)]
        await self._notify()

    async def stop(self, kind: StopKind) -> None:
        """Ask the ranks to end the current job at their next step."""
        self._stop = kind
        await self._notify()

    async def stop_request(self, number: int) -> StopKind | None:
        """Wait for a stop request for job `number` and return it; None once the job has ended."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    self._stop is not None
                    or self._progress.is_finished
                    or self._is_closed
                    or self._job is None
                    or self._job.number != number
                )
            )
        is_current = self._job is not None and self._job.number == number
        return self._stop if is_current and not self._progress.is_finished else None

    async def report_failure(self, error: str, kind: str) -> None:
        """Record the reason of a failed attempt; later reasons are ignored as consequences."""
        if self._failed_attempt != self._progress.attempts:
            self._failed_attempt = self._progress.attempts
            self._failure = (error, kind)

    async def handle_group_failure(
        self, error: str, retries: Mapping[str, int], *, is_node_lost: bool = False
    ) -> bool:
        """Return whether a new worker group should retry the job; if not, finish the job.

        Args:
            error: the reason to record if the ranks reported none.
            retries: maximum number of retries by kind of failure.
            is_node_lost: whether a node of the group was lost. The other ranks then report failures
                that are consequences.
        """
        if self._progress.is_finished or self._is_closed:
            return False
        is_reported = self._failed_attempt == self._progress.attempts and self._failure is not None
        reason, kind = self._failure if is_reported and self._failure else (error, "crash")
        if is_node_lost:
            reason, kind = f"a node was lost: {error}", "lost_node"
            if self._last_step > self._step_at_loss:
                self._failures[kind], self._step_at_loss = 0, self._last_step
        elif self._progress.attempts == 0:
            kind = "start"
        self._failures[kind] += 1
        self._progress.error, self._progress.failure = reason, kind
        self._progress.num_failures += 1
        limits = {**retries, "start": START_FAILURES, "lost_node": LOST_NODES_WITHOUT_STEP}
        if self._stop is not None:
            await self.finish("stopped")
        elif self._failures[kind] > limits.get(kind, 0):
            await self.finish("failed")
        return not self._progress.is_finished

    async def finish(self, outcome: Outcome) -> None:
        """Mark the current job as ended."""
        self._progress.outcome = outcome
        await self._notify()

    async def wait_for_progress(
        self, metrics: dict[str, Any], attempts: int, num_heldout: int, timeout_s: float
    ) -> Progress:
        """Return the current job's progress once it exceeds the arguments, or after `timeout_s`."""

        def has_news() -> bool:
            now = self._progress
            seen = (metrics, attempts, num_heldout)
            return now.is_finished or (now.metrics, now.attempts, len(now.heldout)) != seen

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(has_news)
        return self._progress

    async def close(self) -> None:
        """Release the ranks."""
        self._is_closed = True
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
