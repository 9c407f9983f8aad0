"""Which trial comes next: the search's points, one trial for each seed, within the budget.

Knows neither Ray nor how a trial is run; it reads what became of one from the sweep's folder.
"""

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.budget import Budget
from orchestrator.plan import TrialPlan, pending_record
from orchestrator.record import SweepFolder, TrialRecord
from orchestrator.run_trial import stopped
from orchestrator.search import Observation, Point, Search
from trainers.errors import InputError

# States in which a trial will not go on by itself.
ENDED = ("done", "failed", "stopped", "interrupted")


@dataclass(frozen=True)
class QueuedJob:
    """A trial to run, or a base to score untuned, which has no `point`.

    `untuned` are the `settings` and the `model_path` of a base; a trial's are in its record.
    """

    kind: Literal["trial", "base"]
    key: str
    point: int | None = None
    untuned: dict[str, Any] = field(default_factory=dict)


@dataclass
class _OpenPoint:
    """A point of the search and its trials, one for each seed."""

    searched: dict[str, Any]
    trial_ids: list[str]
    running: set[str] = field(default_factory=set)


class TrialQueue:
    """Asks the search for points as there is room, and tells it their scores when they are in."""

    def __init__(
        self,
        *,
        folder: SweepFolder,
        search: Search,
        seeds: Sequence[int] | None,
        objectives: Sequence[str],
        budget: Budget,
        plan_trial: Callable[[dict[str, Any]], TrialPlan],
        bases: Sequence[str],
        is_known: Callable[[Sequence[Observation]], bool] = lambda observations: False,
    ) -> None:
        """
        Args:
            seeds: repeats of each point; None for the one seed of the spec.
            plan_trial: the trial of searched values.
            bases: that are to be scored untuned, before anything else.
            is_known: whether the best PLW is known well enough to stop.
        """
        self._folder, self._search, self._budget = folder, search, budget
        self._seeds, self._objectives = seeds, objectives
        self._plan_trial, self._is_known = plan_trial, is_known
        self._ready = deque(QueuedJob("base", key, None) for key in bases)
        self._open: dict[int, _OpenPoint] = {}
        self._observations: list[Observation] = []
        self._stopped_points: set[int] = set()
        self.end_reason: str | None = None

    def next(self) -> QueuedJob | None:
        """The next job; None when no further one starts, for the reason in `end_reason`."""
        while True:
            if self._folder.stop_requested(None):
                self.end_reason = "it was asked to stop"
                return None
            job = self._next_ready()
            if job is not None:
                return job
            spent = self._budget.spent(self._folder)
            if spent is not None:
                self.end_reason = spent
                return None
            if self._is_known(self._observations):
                self.end_reason = "the best PLW is known as closely as asked"
                return None
            point = self._search.ask()
            if point is None:
                return None
            self._open_point(point)

    def ended(self, job: QueuedJob) -> None:
        """Take note that a job has ended; its record says how."""
        if job.point is None:
            return
        record = self._folder.read_trial(job.key)
        if record is not None and record.state not in ENDED:
            # Tune ended it on the scheduler's word, in the middle of its training.
            self._folder.write_trial(stopped(record))
            self._stopped_points.add(job.point)
        self._open[job.point].running.discard(job.key)
        self._settle(job.point)

    def _next_ready(self) -> QueuedJob | None:
        while self._ready:
            job = self._ready.popleft()
            if job.point is None:
                return job
            if self._folder.stop_requested(job.key):
                self._open[job.point].running.discard(job.key)
                self._settle(job.point)
                continue
            if job.point in self._stopped_points:
                # The seeds of a point share one fate.
                record = self._folder.read_trial(job.key)
                assert record is not None
                self._folder.write_trial(stopped(record))
                self._open[job.point].running.discard(job.key)
                self._settle(job.point)
                continue
            return job
        return None

    def _open_point(self, point: Point) -> None:
        repeats = [{}] if self._seeds is None else [{"seed": seed} for seed in self._seeds]
        try:
            plans = [self._plan_trial({**point.searched, **repeat}) for repeat in repeats]
        except InputError:
            # Values that break a rule together, which a range could not know.
            self._search.tell(point.number, Observation(point.searched, "failed", None))
            return
        self._write(plans)
        todo = [plan.id for plan in plans if plan.state != "done"]
        self._open[point.number] = _OpenPoint(
            point.searched, [plan.id for plan in plans], running=set(todo)
        )
        self._ready.extend(QueuedJob("trial", trial_id, point.number) for trial_id in todo)
        self._settle(point.number)

    def _write(self, plans: Sequence[TrialPlan]) -> None:
        """Give the trials their records, and the sweep their ids."""
        for plan in plans:
            if self._folder.read_trial(plan.id) is None:
                self._folder.write_trial(pending_record(plan))
        sweep = self._folder.read_sweep()
        new = [plan.id for plan in plans if plan.id not in sweep.trial_ids]
        if new:
            ids = [*sweep.trial_ids, *new]
            self._folder.write_sweep(sweep.model_copy(update={"trial_ids": ids}))

    def _settle(self, number: int) -> None:
        """Tell the search of a point all of whose trials have ended."""
        point = self._open[number]
        if point.running:
            return
        records = [self._folder.read_trial(trial_id) for trial_id in point.trial_ids]
        known = [record for record in records if record is not None]
        observation = observe(self._folder, point.searched, known, self._objectives)
        self._observations.append(observation)
        self._search.tell(number, observation)


def observe(
    folder: SweepFolder,
    searched: dict[str, Any],
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
) -> Observation:
    """What the trials of one point, which differ in their seed, say of it: means over seeds."""
    rows = []
    for record in records:
        card = folder.read_scores(record.id) if record.state == "done" else None
        scores = card.by_name() if card is not None else {}
        if all(name in scores for name in objectives):
            rows.append([scores[name].value for name in objectives])
    if any(record.state == "stopped" for record in records):
        return Observation(searched, "stopped", None)
    if not rows:
        return Observation(searched, "failed", None)
    return Observation(searched, "done", tuple(statistics.fmean(column) for column in zip(*rows)))
