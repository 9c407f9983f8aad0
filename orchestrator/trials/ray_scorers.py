"""Warm processes that score models beside the training, each an actor with its own resources."""

import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef

from orchestrator.foundation.packages import check_packages
from orchestrator.record.stored_sweep import StoredSweep
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trials.placement import Cluster, cpus_per_scorer, gpus_per_scorer
from orchestrator.trials.run_trial import failure_kind, reason_of, score
from orchestrator.trials.scoring_queue import ScoringEnd, ScoringTask
from trainers.foundation.object_store import StorageError

# An idle one holds what a trial, or another sweep, may wait for; it starts again in seconds.
IDLE_S = 60.0


@dataclass(frozen=True)
class ScorerSettings:
    """What a scorer is and does, the same for all models."""

    root: str
    evals: dict[str, Any]
    cpus: int
    gpus: float
    stored_at: str | None = None


def scorer_settings(spec: SweepSpec, cluster: Cluster) -> ScorerSettings:
    """What the scorers of a sweep are and do."""
    return ScorerSettings(
        root=str(spec.folder),
        evals=spec.evals.model_dump(mode="json"),
        cpus=cpus_per_scorer(spec.resources),
        gpus=gpus_per_scorer(spec.resources, cluster),
        stored_at=spec.stored_at,
    )


@dataclass(frozen=True)
class _Failure:
    """Why a scoring failed, where its process lived to tell."""

    error: str
    kind: str


@ray.remote(max_restarts=0)
class Scorer:
    """Scores one model after another; imports once."""

    def __init__(self) -> None:
        check_packages()

    def begin(self) -> None:
        """Answer once the process is there."""

    def score(self, settings: ScorerSettings, task: ScoringTask) -> _Failure | None:
        """Score a model into its folder; returns why that failed, if it did."""
        try:
            stored = _stored(settings)
            if stored is not None:
                stored.bring(task.base, task.settings, task.model_path)
                if task.kind == "trial":
                    stored.bring_model(task.key)
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
                stored.keep(task.kind, task.key)
                stored.drop_model(task.key)
        except Exception as error:
            return _Failure(reason_of(error), failure_kind(error))
        finally:
            _free_memory()
        return None


@dataclass
class _Work:
    """What an actor does; `began_at` is None until its process is there."""

    actor: Any
    task: ScoringTask
    begun: ObjectRef
    began_at: float | None = None


class RayScorers:
    """At most `size` scorers. Each starts when it is needed, and ends when it is not for long."""

    def __init__(self, size: int, settings: ScorerSettings) -> None:
        self.size = size
        self._settings = settings
        self._idle: list[tuple[Any, float]] = []
        self._works: dict[ObjectRef, _Work] = {}

    def start(self, task: ScoringTask) -> bool:
        """Hand out a task; False where all are busy."""
        if len(self._works) >= self.size:
            return False
        actor = self._idle.pop()[0] if self._idle else self._new_scorer()
        begun = actor.begin.remote()
        self._works[actor.score.remote(self._settings, task)] = _Work(actor, task, begun)
        return True

    def begun(self) -> list[ScoringTask]:
        """Tasks that a process has really begun with since this was asked last."""
        waited_for = {work.begun: work for work in self._works.values() if work.began_at is None}
        found = []
        for ref in _ready(list(waited_for)):
            work = waited_for[ref]
            work.began_at = time.monotonic()
            found.append(work.task)
        return found

    def ended(self) -> list[ScoringEnd]:
        """Those that have ended since this was asked last."""
        found = []
        for ref in _ready(list(self._works)):
            work = self._works.pop(ref)
            now = time.monotonic()
            seconds = 0.0 if work.began_at is None else now - work.began_at
            try:
                failure = ray.get(ref)
            except ray.exceptions.RayError as error:
                failure = _Failure(_death(error), _kind_of_death(error))
            stored = _stored(self._settings) if failure is None else None
            if stored is not None:
                failure = _fetched(stored, work.task)
            if failure is None:
                self._idle.append((work.actor, now))
                found.append(ScoringEnd(work.task, seconds))
            else:
                # The process goes with its last handle: what broke may have left its traces.
                found.append(ScoringEnd(work.task, seconds, failure.error, failure.kind))
        self._idle = [(actor, at) for actor, at in self._idle if time.monotonic() - at < IDLE_S]
        return found

    def close(self) -> None:
        """End all of them, whatever they do; their files are whole at any time."""
        for actor in [*(work.actor for work in self._works.values()), *(a for a, _ in self._idle)]:
            ray.kill(actor)
        self._works.clear()
        self._idle.clear()

    def _new_scorer(self) -> Any:
        # By default, and not in the placement group of whoever asks.
        return Scorer.options(  # type: ignore[attr-defined]
            num_cpus=self._settings.cpus,
            num_gpus=self._settings.gpus,
            scheduling_strategy="DEFAULT",
        ).remote()


def _stored(settings: ScorerSettings) -> StoredSweep | None:
    at = settings.stored_at
    return StoredSweep(Path(settings.root), at) if at is not None else None


def _fetched(stored: StoredSweep, task: ScoringTask) -> _Failure | None:
    """Bring the scores here; returns why that failed, if it did."""
    try:
        stored.fetch_records(task.kind, task.key)
    except StorageError as error:
        return _Failure(reason_of(error), failure_kind(error))
    return None


def _ready(refs: list[ObjectRef]) -> list[ObjectRef]:
    if not refs:
        return []
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    return list(ready)


def _kind_of_death(error: BaseException) -> str:
    # Ray's memory monitor kills actors too, and says so in words alone.
    return "out_of_memory" if "running low on memory" in str(error) else failure_kind(error)


def _death(error: BaseException) -> str:
    is_actor = isinstance(error, ray.exceptions.RayActorError)
    return f"the scoring process died: {reason_of(error)}" if is_actor else reason_of(error)


def _free_memory() -> None:
    """Give back what the last model took: a trial may share the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
