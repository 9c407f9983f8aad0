"""What the driver of a trial requires of its workers: warm ranks, or a warm scorer."""

from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.trials.job_channel import Job, Progress, StopKind


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a driver's workers, the same for all of its jobs.

    `is_packed`: all ranks run on one node. `retries` is the maximum number of retries by kind of
    failure.
    """

    root: str
    evals: dict[str, Any]
    num_workers: int
    cpus_per_worker: int
    gpus_per_worker: float
    cpus_per_scorer: int
    gpus_per_scorer: float
    retries: dict[str, int]
    is_packed: bool = False
    storage_uri: str | None = None


class Workers(Protocol):
    """Processes that run one job after another: `WarmRanks`, `WarmScorer`, or a benchmark's."""

    def submit(self, job: Job) -> None:
        """Submit a job; the previous one must be finished."""

    def wait(self, seen: Progress, timeout_s: float) -> Progress:
        """Return the job's progress once it is ahead of `seen`, or after `timeout_s`."""
        ...

    def stop(self, kind: StopKind) -> None:
        """Ask the processes to end the current job at their next step."""

    def close(self, *, wait: bool = True, timeout_s: float = 10) -> None:
        """Release the processes and their resources."""
