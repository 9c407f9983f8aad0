"""Score models in a warm process, in parallel with the training of other trials."""

import gc
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from evals.judge.local_server import kept_servers
from orchestrator.foundation.packages import check_packages
from orchestrator.record.remote_sweep import RemoteSweep
from orchestrator.trials.job_channel import Job, Progress, StopKind
from orchestrator.trials.nodes import check_gpu
from orchestrator.trials.run_trial import error_reason, failure_kind, is_node_lost, score
from orchestrator.trials.workers import WorkerSettings

# Retries of a job whose node was lost. Finished evaluations are not repeated.
LOST_NODES = 10
# The scorer's bundle in the placement group of its driver; the driver has the first one.
SCORER_BUNDLE = 1


@dataclass(frozen=True)
class _Failure:
    """Reason and kind of a failed scoring."""

    error: str
    kind: str


@ray.remote(max_restarts=0)
class Scorer:
    """Scores one model after another in a process that imports its libraries once."""

    def __init__(self) -> None:
        check_packages()
        # A local judge starts once for all models of this process, and ends with it.
        self._kept = ExitStack()
        self._kept.enter_context(kept_servers())

    def wait_until_ready(self) -> None:
        """Return once the process has started."""

    def score(self, settings: WorkerSettings, job: Job) -> _Failure | None:
        """Score a model and write the scores into its folder; return the failure, if any."""
        root = Path(settings.root)
        at = settings.storage_uri
        try:
            check_gpu()
            stored = RemoteSweep(root, at) if at is not None else None
            if stored is not None:
                stored.download_inputs(job.base, job.settings, job.model_path)
                if job.scored == "trial":
                    stored.download_model(job.key)
                if job.opponent is not None:
                    stored.download_outputs(job.opponent)
            score(
                root,
                job.scored,
                job.key,
                job.base,
                job.model_path,
                job.settings,
                settings.evals,
                settings.cpus_per_scorer,
                opponent=job.opponent,
            )
            if stored is not None:
                stored.upload(job.scored, job.key)
                stored.remove_local_model(job.key)
        except Exception as error:
            return _Failure(error_reason(error), failure_kind(error))
        finally:
            _free_memory()
        return None


class WarmScorer:
    """A scorer in the placement group of its driver, which a new process replaces after a failure.

    A failed job is retried here, up to the number of retries for its kind of failure.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._actor: Any = None
        self._failures: Counter[str] = Counter()
        self._progress = Progress(outcome="done")

    def submit(self, job: Job) -> None:
        """Submit a model to score; the previous one must be finished."""
        assert job.kind in ("scoring", "base")
        self._job = job
        self._failures.clear()
        self._progress = Progress()
        self._start()

    def wait(self, seen: Progress, timeout_s: float) -> Progress:
        """Return the job's progress once it is ahead of `seen`, or after `timeout_s`."""
        if self._progress.is_finished:
            return self._progress
        is_running = self._progress.attempts > self._progress.num_failures
        ready, _ = ray.wait([self._result if is_running else self._begun], timeout=timeout_s)
        if ready and is_running:
            self._progress = self._after_attempt()
        elif ready:
            self._progress = replace(self._progress, attempts=self._progress.attempts + 1)
        return self._progress

    def stop(self, kind: StopKind) -> None:
        """Do nothing: a scoring has no steps."""

    def close(self, *, wait: bool = True, timeout_s: float = 10) -> None:
        """End the process at once. This is safe, because it writes files atomically."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None

    def _start(self) -> None:
        if self._actor is None:
            settings = self._settings
            bundle = PlacementGroupSchedulingStrategy(get_current_placement_group(), SCORER_BUNDLE)
            self._actor = Scorer.options(  # type: ignore[attr-defined]
                num_cpus=settings.cpus_per_scorer,
                num_gpus=settings.gpus_per_scorer,
                scheduling_strategy=bundle,
            ).remote()
        self._begun = self._actor.wait_until_ready.remote()
        self._result = self._actor.score.remote(self._settings, self._job)

    def _after_attempt(self) -> Progress:
        """Return the progress after an attempt; start the next one if it failed and may retry."""
        try:
            failure = ray.get(self._result)
        except ray.exceptions.RayError as error:
            failure = _Failure(_death_reason(error), _death_kind(error))
        if failure is None:
            return replace(self._progress, outcome="done")
        # Dropping the handle ends the process, which the failure may have corrupted.
        self._actor = None
        self._failures[failure.kind] += 1
        limits = {**self._settings.retries, "lost_node": LOST_NODES}
        is_last = self._failures[failure.kind] > limits.get(failure.kind, 0)
        if not is_last:
            self._start()
        return replace(
            self._progress,
            outcome="failed" if is_last else None,
            error=failure.error,
            failure=failure.kind,
            num_failures=self._progress.num_failures + 1,
        )


def _death_kind(error: BaseException) -> str:
    if is_node_lost(error):
        return "lost_node"
    # Ray's memory monitor also kills actors; only the error message shows it.
    return "out_of_memory" if "running low on memory" in str(error) else failure_kind(error)


def _death_reason(error: BaseException) -> str:
    is_actor = isinstance(error, ray.exceptions.RayActorError)
    return f"the scoring process died: {error_reason(error)}" if is_actor else error_reason(error)


def _free_memory() -> None:
    """Release the memory of the last model, because a trial may share the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
