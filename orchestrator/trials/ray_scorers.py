"""Score models on warm actors in parallel with training; each actor has its own resources."""

import gc
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef

from evals.judge.local_server import kept_servers
from orchestrator.foundation.packages import check_packages
from orchestrator.record.remote_sweep import RemoteSweep
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trials.placement import Cluster, cpus_per_scorer, gpus_per_scorer
from orchestrator.trials.run_trial import error_reason, failure_kind, is_node_lost, score
from orchestrator.trials.scoring_queue import ScoringResult, ScoringTask
from trainers.foundation.object_store import StorageError

# An idle scorer holds resources that a trial or another sweep may need; it restarts in seconds.
IDLE_S = 60.0


@dataclass(frozen=True)
class ScorerSettings:
    """Settings of a scorer, the same for all models."""

    root: str
    evals: dict[str, Any]
    cpus: int
    gpus: float
    storage_uri: str | None = None


def scorer_settings(spec: SweepSpec, cluster: Cluster) -> ScorerSettings:
    """Return the settings of a sweep's scorers."""
    return ScorerSettings(
        root=str(spec.folder),
        evals=spec.evals.model_dump(mode="json"),
        cpus=cpus_per_scorer(spec.resources),
        gpus=gpus_per_scorer(spec.resources, cluster),
        storage_uri=spec.storage_uri,
    )


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

    def score(self, settings: ScorerSettings, task: ScoringTask) -> _Failure | None:
        """Score a model and write the scores into its folder; return the failure, if any."""
        try:
            stored = _remote_sweep(settings)
            if stored is not None:
                stored.download_inputs(task.base, task.settings, task.model_path)
                if task.kind == "trial":
                    stored.download_model(task.key)
            score(
                Path(settings.root),
                task.kind,
                task.key,
                task.base,
                task.model_path,
                task.settings,
                settings.evals,
                settings.cpus,
            )
            if stored is not None:
                stored.upload(task.kind, task.key)
                stored.remove_local_model(task.key)
        except Exception as error:
            return _Failure(error_reason(error), failure_kind(error))
        finally:
            _free_memory()
        return None


@dataclass
class _Running:
    """The task of an actor; `started_at` is None until its process has started."""

    actor: Any
    task: ScoringTask
    begun: ObjectRef
    started_at: float | None = None


class RayScorers:
    """A pool of at most `size` scorers.

    Each scorer starts on demand and ends after `IDLE_S` without a task.
    """

    def __init__(self, size: int, settings: ScorerSettings) -> None:
        self.size = size
        self._settings = settings
        self._idle: list[tuple[Any, float]] = []
        self._running: dict[ObjectRef, _Running] = {}

    def start(self, task: ScoringTask) -> bool:
        """Start a task; return False if all scorers are busy."""
        if len(self._running) >= self.size:
            return False
        actor = self._idle.pop()[0] if self._idle else self._new_scorer()
        begun = actor.wait_until_ready.remote()
        self._running[actor.score.remote(self._settings, task)] = _Running(actor, task, begun)
        return True

    def started(self) -> list[ScoringTask]:
        """Return the tasks that have started to run since the last call."""
        waited_for = {
            work.begun: work for work in self._running.values() if work.started_at is None
        }
        found = []
        for ref in _ready(list(waited_for)):
            work = waited_for[ref]
            work.started_at = time.monotonic()
            found.append(work.task)
        return found

    def finished(self) -> list[ScoringResult]:
        """Return the results of the tasks that have ended since the last call."""
        found = []
        for ref in _ready(list(self._running)):
            work = self._running.pop(ref)
            now = time.monotonic()
            seconds = 0.0 if work.started_at is None else now - work.started_at
            try:
                failure = ray.get(ref)
            except ray.exceptions.RayError as error:
                failure = _Failure(_death_reason(error), _death_kind(error))
            stored = _remote_sweep(self._settings) if failure is None else None
            if stored is not None:
                failure = _download_scores(stored, work.task)
            if failure is None:
                self._idle.append((work.actor, now))
                found.append(ScoringResult(work.task, seconds))
            else:
                # Dropping the last handle ends the process, which the failure may have corrupted.
                found.append(ScoringResult(work.task, seconds, failure.error, failure.kind))
        self._idle = [(actor, at) for actor, at in self._idle if time.monotonic() - at < IDLE_S]
        return found

    def close(self) -> None:
        """End all scorers at once. This is safe, because they write files atomically."""
        for actor in [
            *(work.actor for work in self._running.values()),
            *(a for a, _ in self._idle),
        ]:
            ray.kill(actor)
        self._running.clear()
        self._idle.clear()

    def _new_scorer(self) -> Any:
        # DEFAULT keeps the scorer out of the caller's placement group.
        return Scorer.options(  # type: ignore[attr-defined]
            num_cpus=self._settings.cpus,
            num_gpus=self._settings.gpus,
            scheduling_strategy="DEFAULT",
        ).remote()


def _remote_sweep(settings: ScorerSettings) -> RemoteSweep | None:
    at = settings.storage_uri
    return RemoteSweep(Path(settings.root), at) if at is not None else None


def _download_scores(stored: RemoteSweep, task: ScoringTask) -> _Failure | None:
    """Download the scores; return the failure, if any."""
    try:
        stored.download_records(task.kind, task.key)
    except StorageError as error:
        return _Failure(error_reason(error), failure_kind(error))
    return None


def _ready(refs: list[ObjectRef]) -> list[ObjectRef]:
    if not refs:
        return []
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    return list(ready)


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
