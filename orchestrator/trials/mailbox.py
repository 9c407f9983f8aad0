"""What passes between a trial's driver and its warm ranks: one job at a time, and its progress.

A job stays current until it is finished, so ranks that come back after a crash are given it again
and resume from its last checkpoint.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import ray

from orchestrator.trials.run_trial import JobKind

# `checkpoint` keeps what is needed to go on later, `discard` does not.
StopKind = Literal["checkpoint", "discard"]
Outcome = Literal["done", "failed", "stopped"]

# A worker group that dies before its ranks have begun says nothing about the job.
START_FAILURES = 2


@dataclass(frozen=True)
class Job:
    """One thing for the ranks to do with trial `key`, or with base `key`.

    `base` is the key of the base whose held-out examples the scores are taken on.
    """

    number: int
    kind: JobKind
    key: str
    base: str
    settings: dict[str, Any]
    model_path: str


@dataclass
class Progress:
    """What has become of a job. `heldout` are (step, held-out completion loss), in order.

    `attempts` is 0 while no rank has begun; `error` is the reason of the last failure.
    """

    outcome: Outcome | None = None
    error: str | None = None
    attempts: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    heldout: list[tuple[int, float]] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return self.outcome is not None


@ray.remote(num_cpus=0, max_concurrency=10_000)
class Mailbox:
    """An asynchronous actor: waiting costs no polling, and every rank may wait at once."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._progress = Progress(outcome="done")
        self._failures: Counter[str] = Counter()
        self._excuse: tuple[str, str] | None = None
        self._excused_attempt = 0
        self._stop: StopKind | None = None
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def give(self, job: Job) -> None:
        """Hand the next job to the ranks; the last one must be finished."""
        assert self._progress.is_finished
        self._job, self._progress = job, Progress()
        self._failures.clear()
        self._excuse, self._excused_attempt, self._stop = None, 0, None
        await self._notify()

    async def take(self, after: int) -> Job | None:
        """The first job numbered above `after`, once there is one; None when all is done."""
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

    async def begin(self) -> None:
        """Count an attempt at the current job: its first, or one after its ranks died."""
        self._progress.attempts += 1
        await self._notify()

    async def report(self, metrics: dict[str, Any]) -> None:
        """Keep the latest metrics of the current job, and each held-out loss."""
        self._progress.metrics = metrics
        loss = metrics.get("heldout_completion_loss")
        if loss is not None:
            # A resumed run measures again what the one that was cut had measured.
            earlier = [entry for entry in self._progress.heldout if entry[0] < metrics["step"]]
            self._progress.heldout = [*earlier, (metrics["step"], loss)]
        await self._notify()

    async def stop(self, kind: StopKind) -> None:
        """Ask the ranks to end the current job at their next step."""
        self._stop = kind
        await self._notify()

    async def stop_wish(self, number: int) -> StopKind | None:
        """How job `number` shall end early, once that is wished; None when it has ended."""
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

    async def excuse(self, error: str, kind: str) -> None:
        """Keep why this attempt ends; the first reason is the cause, the others follow from it."""
        if self._excused_attempt != self._progress.attempts:
            self._excused_attempt = self._progress.attempts
            self._excuse = (error, kind)

    async def group_died(self, error: str, retries: Mapping[str, int]) -> bool:
        """Whether the job shall be tried again by a new worker group; if not, it is finished.

        Args:
            error: what is known of the death, where the ranks gave no reason.
            retries: how often a job is tried again after a failure of each kind.
        """
        if self._progress.is_finished or self._is_closed:
            return False
        has_excuse = self._excused_attempt == self._progress.attempts and self._excuse is not None
        reason, kind = self._excuse if has_excuse and self._excuse else (error, "crash")
        if self._progress.attempts == 0:
            kind = "start"
        self._failures[kind] += 1
        self._progress.error = reason
        if self._stop is not None:
            await self.finish("stopped")
        elif self._failures[kind] > {**retries, "start": START_FAILURES}.get(kind, 0):
            await self.finish("failed")
        return not self._progress.is_finished

    async def finish(self, outcome: Outcome) -> None:
        """Mark the current job as ended."""
        self._progress.outcome = outcome
        await self._notify()

    async def wait(
        self, metrics: dict[str, Any], attempts: int, num_heldout: int, timeout_s: float
    ) -> Progress:
        """The current job's progress, once it is more than what is given, or after `timeout_s`."""

        def has_news() -> bool:
            now = self._progress
            seen = (metrics, attempts, num_heldout)
            return now.is_finished or (now.metrics, now.attempts, len(now.heldout)) != seen

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(has_news)
        return self._progress

    async def close(self) -> None:
        """Let the ranks go."""
        self._is_closed = True
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
