"""Which trial comes next: the search's points, one trial for each seed, within the budget.

Knows neither Ray nor how a trial is run; it reads what became of one from the sweep's folder.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.budget import Budget
from orchestrator.history import History, observe, plan_point
from orchestrator.planner import Planner, TrialPlan, pending_record, prepare_base
from orchestrator.record import SweepFolder
from orchestrator.run_trial import stopped
from orchestrator.search import Observation, Point, make_search
from orchestrator.spec import SweepSpec
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
    """Asks the search for points as there is room, and tells it their scores when they are in.

    `end_reason` says why no further trial starts, where it is not that all are done.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: SweepFolder,
        planner: Planner,
        history: History,
        budget: Budget,
    ) -> None:
        """
        Args:
            history: what is known of the points of a search that samples; empty for a grid.
        """
        self._spec, self._folder = spec, folder
        self._planner, self._budget = planner, budget
        self._search = make_search(spec.search, history.known, history.num_own, history.unfinished)
        self._ready: deque[QueuedJob] = deque()
        self._bases: set[str] = set()
        self._queue_new_bases()
        self._open: dict[int, _OpenPoint] = {}
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
            point = self._search.ask()
            if point is None:
                self.end_reason = self._search.ended
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
        try:
            plans = plan_point(self._spec, self._planner, point.searched)
        except InputError:
            # Values that break a rule together, which a range could not know.
            self._search.tell(point.number, Observation(point.searched, "failed", None))
            return
        self._queue_new_bases()
        self._write(plans)
        todo = [plan.id for plan in plans if plan.state not in ("done", "stopped")]
        self._open[point.number] = _OpenPoint(
            point.searched, [plan.id for plan in plans], running=set(todo)
        )
        self._ready.extend(QueuedJob("trial", trial_id, point.number) for trial_id in todo)
        self._settle(point.number)

    def _queue_new_bases(self) -> None:
        """Record the bases that the planner has come across, and score those without scores."""
        new = [base for base in self._planner.bases if base.key not in self._bases]
        if not new:
            return
        self._bases |= {base.key for base in new}
        sweep = self._folder.read_sweep()
        known = {base.key for base in sweep.bases}
        for base in new:
            if base.key not in known:
                prepare_base(self._folder, base)
            if not base.has_scores:
                untuned = {"settings": base.settings, "model_path": base.model_path}
                self._ready.append(QueuedJob("base", base.key, untuned=untuned))
        if any(base.key not in known for base in new):
            records = [base.record for base in self._planner.bases]
            self._folder.write_sweep(sweep.model_copy(update={"bases": records}))

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
        observation = observe(self._folder, point.searched, known, self._spec.search.objectives)
        self._search.tell(number, observation)
