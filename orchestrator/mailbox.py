"""What passes between a trial's driver and its warm ranks: one job at a time, and its progress.

A job stays current until it is finished, so ranks that come back after a crash are given it again
and resume from its last checkpoint.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

import ray


@dataclass(frozen=True)
class Job:
    """One thing for the ranks to do: train and score a trial, or score a base's untuned model.

    `base` is the key of the trial's base, or of the one to be scored, for which `trial_id` is None.
    """

    number: int
    kind: Literal["trial", "untuned"]
    trial_id: str | None
    base: str
    settings: dict[str, Any]
    model_path: str


@dataclass
class Progress:
    """What has become of a job. `error` is None for one that went well or goes on."""

    is_finished: bool = False
    error: str | None = None
    attempts: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)


@ray.remote(num_cpus=0, max_concurrency=10_000)
class Mailbox:
    """An asynchronous actor: waiting costs no polling, and every rank may wait at once."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._progress = Progress(is_finished=True)
        self._excuse: str | None = None
        self._excused_attempt = 0
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def give(self, job: Job) -> None:
        """Hand the next job to the ranks; the last one must be finished."""
        assert self._progress.is_finished
        self._job, self._progress = job, Progress()
        self._excuse, self._excused_attempt = None, 0
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

    async def report(self, metrics: dict[str, Any]) -> None:
        """Keep the latest metrics of the current job."""
        self._progress.metrics = metrics
        await self._notify()

    async def excuse(self, error: str) -> None:
        """Keep why this attempt ends; the first reason is the cause, the others follow from it."""
        if self._excused_attempt != self._progress.attempts:
            self._excused_attempt = self._progress.attempts
            self._excuse = error

    async def fail(self, error: str) -> None:
        """Mark the current job as failed: for the reason its ranks gave, or else for `error`."""
        await self.finish(self._excuse or error)

    async def finish(self, error: str | None) -> None:
        """Mark the current job as done, or as failed for a reason."""
        self._progress.is_finished = True
        self._progress.error = error
        await self._notify()

    async def wait(self, seen: dict[str, Any]) -> Progress:
        """The current job's progress, once its metrics differ from `seen` or it is finished."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._progress.is_finished or self._progress.metrics != seen
            )
        return self._progress

    async def close(self) -> None:
        """Let the ranks go."""
        self._is_closed = True
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
