"""Queue of trained trials and untuned baselines that wait for a scorer. Independent of Ray.

Scoring runs in parallel with the training of other trials. If a scoring task fails, only the task
is retried; the model is not trained again.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from orchestrator.record.folder import BaselineUsage, SweepFolder, TrialRecord
from orchestrator.trials.run_trial import (
    mark_failed,
    mark_interrupted,
    mark_scored,
    mark_trained,
    train_result,
)

log = logging.getLogger(__name__)

WAITING_NOTE = "waits for a scorer"
# Retries of a scoring task whose node was lost. Finished evaluations are not repeated.
LOST_NODES = 10


@dataclass(frozen=True)
class ScoringTask:
    """A model to score: the model of trial `key`, or the untuned model of baseline `key`.

    `base` is the key of the baseline whose held-out examples are scored.
    """

    kind: Literal["trial", "base"]
    key: str
    base: str
    settings: dict[str, Any]
    model_path: str


@dataclass(frozen=True)
class ScoringResult:
    """Result of a scoring task; without an `error`, the scores have been written.

    `failure` is the kind of failure as named in the spec's `retries`. `seconds` is the time for
    which the task used a scorer.
    """

    task: ScoringTask
    seconds: float
    error: str | None = None
    failure: str | None = None


class Scorers(Protocol):
    """A pool of processes, each of which scores one model at a time."""

    size: int

    def start(self, task: ScoringTask) -> bool:
        """Start a task; return False if all processes are busy."""

    def started(self) -> list[ScoringTask]:
        """Return the tasks that have started to run since the last call."""

    def finished(self) -> list[ScoringResult]:
        """Return the results of the tasks that have ended since the last call."""

    def close(self) -> None:
        """End all processes at once."""


class ScoringQueue:
    """Starts tasks on scorers in order, and updates the trials' records."""

    def __init__(
        self,
        folder: SweepFolder,
        scorers: Scorers,
        retries: Mapping[str, int],
        on_end: Callable[[ScoringTask], None],
    ) -> None:
        """Create the queue.

        Args:
            retries: maximum number of retries by kind of failure.
            on_end: called when a task has ended and is not retried. The trial's record then has its
                state.
        """
        self._folder, self._scorers = folder, scorers
        self._retries, self._on_end = retries, on_end
        self._waiting: deque[ScoringTask] = deque()
        self._running: dict[str, ScoringTask] = {}
        self._failures: dict[str, Counter[str]] = {}

    @property
    def size(self) -> int:
        """Maximum number of models that are scored at once."""
        return self._scorers.size

    @property
    def has_work(self) -> bool:
        """True if a model is waiting or is being scored."""
        return bool(self._waiting or self._running)

    def add(self, task: ScoringTask) -> None:
        """Add a model, to be scored as soon as a scorer is free."""
        self._waiting.append(task)
        record = self._record(task)
        if record is not None:
            result = train_result(self._folder.root, task.key)
            assert result is not None
            changes = {"note": WAITING_NOTE, "is_scored_beside": True}
            waiting = mark_trained(record, result).model_copy(update=changes)
            self._folder.write_trial(waiting)
        if self._folder.stop_requested(None):
            self.cancel_all()
        else:
            self._start_waiting()

    def take_waiting(self, *, beyond: int) -> ScoringTask | None:
        """Remove and return the first waiting task if more than `beyond` wait, else None.

        Tasks that have failed before stay in the queue, which counts their failures.
        """
        if len(self._waiting) <= beyond:
            return None
        task = next((task for task in self._waiting if task.key not in self._failures), None)
        if task is not None:
            self._waiting.remove(task)
        return task

    def poll(self) -> None:
        """Record the progress of the scorers since the last call, and start waiting tasks."""
        if self._folder.stop_requested(None):
            self.cancel_all()
            return
        for task in self._scorers.started():
            self._note(task, None)
        for end in self._scorers.finished():
            self._record_result(end)
        for task in [task for task in self._waiting if self._is_stopped(task)]:
            self._waiting.remove(task)
            self._interrupt(task)
        self._start_waiting()

    def cancel_all(self) -> None:
        """End all tasks; unscored models are scored when the sweep runs again."""
        self._scorers.close()
        tasks = [*self._running.values(), *self._waiting]
        self._running.clear()
        self._waiting.clear()
        for task in tasks:
            self._interrupt(task)

    def _start_waiting(self) -> None:
        while self._waiting and self._scorers.start(self._waiting[0]):
            task = self._waiting.popleft()
            self._running[task.key] = task

    def _record_result(self, end: ScoringResult) -> None:
        task = self._running.pop(end.task.key)
        record = self._record(task)
        if record is not None:
            busy_s = record.scorer_seconds + end.seconds
            record = record.model_copy(update={"scorer_seconds": busy_s})
            self._folder.write_trial(record)
        else:
            self._folder.add_baseline_usage(task.key, BaselineUsage(scorer_seconds=end.seconds))
        if end.error is not None and self._is_tried_again(task, end):
            # Retry before the other tasks, because the search has waited the longest for these
            # scores.
            self._waiting.appendleft(task)
            self._note(task, f"{WAITING_NOTE}, again after: {end.error}")
            return
        if record is not None and end.error is not None:
            self._folder.write_trial(mark_failed(record, end.error, end.failure))
        elif record is not None:
            card = self._folder.read_scores(task.key)
            assert card is not None
            self._folder.write_trial(mark_scored(record, card.seconds))
        self._on_end(task)

    def _is_tried_again(self, task: ScoringTask, end: ScoringResult) -> bool:
        kind = end.failure or "crash"
        failures = self._failures.setdefault(task.key, Counter())
        failures[kind] += 1
        again = failures[kind] <= {**self._retries, "lost_node": LOST_NODES}.get(kind, 0)
        then = "retrying" if again else "giving up"
        log.warning("scoring %s %s failed, %s: %s", task.kind, task.key, then, end.error)
        return again

    def _is_stopped(self, task: ScoringTask) -> bool:
        return task.kind == "trial" and self._folder.stop_requested(task.key)

    def _interrupt(self, task: ScoringTask) -> None:
        record = self._record(task)
        if record is not None:
            self._folder.write_trial(mark_interrupted(record))
        self._on_end(task)

    def _note(self, task: ScoringTask, note: str | None) -> None:
        record = self._record(task)
        if record is not None and record.note != note:
            self._folder.write_trial(record.model_copy(update={"note": note}))

    def _record(self, task: ScoringTask) -> TrialRecord | None:
        """Return the record of a trial; None for a baseline."""
        return self._folder.read_trial(task.key) if task.kind == "trial" else None
