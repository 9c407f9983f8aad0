"""Trained trials and untuned bases that wait for their scores, and the processes that score them.

Knows nothing of Ray. Scoring runs beside the training of other trials: what fails here is tried
again here, and a trained model is never trained again for it.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from orchestrator.record.folder import BaseUsage, SweepFolder, TrialRecord
from orchestrator.trials.run_trial import failed, interrupted, scored, train_result, trained

log = logging.getLogger(__name__)

WAITING_NOTE = "waits for a scorer"


@dataclass(frozen=True)
class ScoringTask:
    """A model to score: that of trial `key`, or the untuned one of base `key`.

    `base` is the key of the base whose held-out examples the scores are taken on.
    """

    kind: Literal["trial", "base"]
    key: str
    base: str
    settings: dict[str, Any]
    model_path: str


@dataclass(frozen=True)
class ScoringEnd:
    """How a scoring has ended; without an `error` the scores are there.

    `failure` is its kind, as the spec's `retries` counts them; `seconds` are those for which it
    held a scorer.
    """

    task: ScoringTask
    seconds: float
    error: str | None = None
    failure: str | None = None


class Scorers(Protocol):
    """Processes that score, one model each at a time."""

    size: int

    def start(self, task: ScoringTask) -> bool:
        """Hand out a task; False where all are busy."""

    def begun(self) -> list[ScoringTask]:
        """Tasks that a process has really begun with since this was asked last."""

    def ended(self) -> list[ScoringEnd]:
        """Those that have ended since this was asked last."""

    def close(self) -> None:
        """End all of them, whatever they do."""


class ScoringQueue:
    """Hands tasks to scorers in order, and keeps the trials' records while they are scored."""

    def __init__(
        self,
        folder: SweepFolder,
        scorers: Scorers,
        retries: Mapping[str, int],
        on_end: Callable[[ScoringTask], None],
    ) -> None:
        """
        Args:
            retries: how often a scoring is tried again after a failure of each kind.
            on_end: called once a task has ended for good; a trial's record says how.
        """
        self._folder, self._scorers = folder, scorers
        self._retries, self._on_end = retries, on_end
        self._waiting: deque[ScoringTask] = deque()
        self._running: dict[str, ScoringTask] = {}
        self._failures: dict[str, Counter[str]] = {}

    @property
    def size(self) -> int:
        """Models that are scored at once."""
        return self._scorers.size

    @property
    def has_work(self) -> bool:
        """Whether a model waits or is being scored."""
        return bool(self._waiting or self._running)

    def add(self, task: ScoringTask) -> None:
        """Let a model be scored as soon as a scorer is free."""
        self._waiting.append(task)
        record = self._record(task)
        if record is not None:
            result = train_result(self._folder.root, task.key)
            assert result is not None
            changes = {"note": WAITING_NOTE, "is_scored_beside": True}
            waiting = trained(record, result).model_copy(update=changes)
            self._folder.write_trial(waiting)
        if self._folder.stop_requested(None):
            self.abandon()
        else:
            self._hand_out()

    def take(self, *, beyond: int) -> ScoringTask | None:
        """The first that waits, for someone else to score, if more than `beyond` do.

        What has failed before stays here, where its failures are counted.
        """
        if len(self._waiting) <= beyond:
            return None
        task = next((task for task in self._waiting if task.key not in self._failures), None)
        if task is not None:
            self._waiting.remove(task)
        return task

    def follow(self) -> None:
        """Bring the records up to what the scorers have done, and give them more to do."""
        if self._folder.stop_requested(None):
            self.abandon()
            return
        for task in self._scorers.begun():
            self._note(task, None)
        for end in self._scorers.ended():
            self._take_in(end)
        for task in [task for task in self._waiting if self._is_stopped(task)]:
            self._waiting.remove(task)
            self._interrupt(task)
        self._hand_out()

    def abandon(self) -> None:
        """End everything; what is not scored goes on when the sweep is run again."""
        self._scorers.close()
        tasks = [*self._running.values(), *self._waiting]
        self._running.clear()
        self._waiting.clear()
        for task in tasks:
            self._interrupt(task)

    def _hand_out(self) -> None:
        while self._waiting and self._scorers.start(self._waiting[0]):
            task = self._waiting.popleft()
            self._running[task.key] = task

    def _take_in(self, end: ScoringEnd) -> None:
        task = self._running.pop(end.task.key)
        record = self._record(task)
        if record is not None:
            busy_s = record.scorer_seconds + end.seconds
            record = record.model_copy(update={"scorer_seconds": busy_s})
            self._folder.write_trial(record)
        else:
            self._folder.add_base_usage(task.key, BaseUsage(scorer_seconds=end.seconds))
        if end.error is not None and self._is_tried_again(task, end):
            # Not behind the others: its scores have been waited for the longest.
            self._waiting.appendleft(task)
            self._note(task, f"{WAITING_NOTE}, again after: {end.error}")
            return
        if record is not None and end.error is not None:
            self._folder.write_trial(failed(record, end.error))
        elif record is not None:
            card = self._folder.read_scores(task.key)
            assert card is not None
            self._folder.write_trial(scored(record, card.seconds))
        self._on_end(task)

    def _is_tried_again(self, task: ScoringTask, end: ScoringEnd) -> bool:
        kind = end.failure or "crash"
        failures = self._failures.setdefault(task.key, Counter())
        failures[kind] += 1
        again = failures[kind] <= self._retries.get(kind, 0)
        then = "it is tried again" if again else "it is given up"
        log.warning("scoring %s %s failed, %s: %s", task.kind, task.key, then, end.error)
        return again

    def _is_stopped(self, task: ScoringTask) -> bool:
        return task.kind == "trial" and self._folder.stop_requested(task.key)

    def _interrupt(self, task: ScoringTask) -> None:
        record = self._record(task)
        if record is not None:
            self._folder.write_trial(interrupted(record))
        self._on_end(task)

    def _note(self, task: ScoringTask, note: str | None) -> None:
        record = self._record(task)
        if record is not None and record.note != note:
            self._folder.write_trial(record.model_copy(update={"note": note}))

    def _record(self, task: ScoringTask) -> TrialRecord | None:
        """The record of a trial; a base has none."""
        return self._folder.read_trial(task.key) if task.kind == "trial" else None
