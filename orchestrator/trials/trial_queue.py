"""Which trial comes next: the search's points, one trial for each seed, within the budget.

Knows neither Ray nor how a trial is run; it reads what became of one from the sweep's folder.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan.history import History, observe, plan_point
from orchestrator.plan.planner import Base, Planner, TrialPlan, pending_record, prepare_base
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.search.budget import Budget
from orchestrator.search.points import Observation, Point, make_search
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trials.run_trial import (
    JobKind,
    failed,
    is_scored_since,
    is_trained,
    scored,
    stopped,
    train_result,
    trained,
)
from orchestrator.trials.scoring_queue import Scorers, ScoringQueue, ScoringTask
from trainers.foundation.errors import InputError

# States in which a trial will not go on by itself.
ENDED = ("done", "failed", "stopped", "interrupted")


@dataclass(frozen=True)
class QueuedJob:
    """A trial to train, to score or both, or a base to score untuned.

    `point` is that of a trial which is trained; `untuned` are the `settings` and the `model_path`
    of a base; a trial's are in its record.
    """

    kind: JobKind
    key: str
    point: int | None = None
    untuned: dict[str, Any] = field(default_factory=dict)


@dataclass
class _OpenPoint:
    """A point of the search and its trials, one for each seed."""

    searched: dict[str, Any]
    trial_ids: list[str]
    running: set[str] = field(default_factory=set)
    is_told: bool = False


class TrialQueue:
    """Asks the search for points as there is room, and tells it their scores when they are in.

    With scorers, a trial that is trained is handed to them, and its turn is over: the search learns
    of a point only once it is scored. `end_reason` says why no further trial starts, where it is
    not that all are done.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: SweepFolder,
        planner: Planner,
        history: History,
        budget: Budget,
        scorers: Scorers | None = None,
        *,
        has_others_score: bool = True,
    ) -> None:
        """
        Args:
            history: what is known of the points of a search that samples; empty for a grid.
            scorers: what scores beside the training; None where each job scores what it trains.
            has_others_score: whether jobs score as well, where the scorers do not keep up.
        """
        self._spec, self._folder = spec, folder
        self._planner, self._budget = planner, budget
        self._search = make_search(spec.search, history.known, history.num_own, history.unfinished)
        self._scoring: ScoringQueue | None = None
        if scorers is not None:
            retries = spec.retries.model_dump()
            self._scoring = ScoringQueue(folder, scorers, retries, self._scoring_ended)
        self._has_others_score = has_others_score
        self._ready: deque[QueuedJob] = deque()
        self._open: dict[int, _OpenPoint] = {}
        self._point_of: dict[str, int] = {}
        self._bases: set[str] = set()
        self._queue_new_bases()
        self._stopped_points: set[int] = set()
        self.end_reason: str | None = None

    @property
    def is_scoring(self) -> bool:
        """Whether scorers still have something to do."""
        return self._scoring is not None and self._scoring.has_work

    def next(self) -> QueuedJob | None:
        """The next job; None when no further one starts, for the reason in `end_reason`."""
        while True:
            if self._folder.stop_requested(None):
                self.end_reason = "it was asked to stop"
                return None
            self.follow_scoring()
            # Each scorer has one model to score and one that waits: more would only pile up.
            most = self._scoring.size if self._scoring is not None else 0
            job = self._unscored(beyond=most) or self._next_ready()
            if job is not None:
                return job
            reason = self._budget.spent(self._folder)
            point = None if reason is not None else self._search.ask()
            if point is None:
                job = self._unscored(beyond=0)
                if job is None:
                    self.end_reason = reason or self._search.ended
                return job
            self._open_point(point)

    def follow_scoring(self) -> None:
        """Take note of what the scorers have done, and give them more to do."""
        if self._scoring is not None:
            self._scoring.follow()

    def ended(self, job: QueuedJob) -> None:
        """Take note that a job has ended; its record says how."""
        if job.kind == "base":
            return
        record = self._folder.read_trial(job.key)
        if record is not None and record.state not in ENDED:
            if job.kind == "training" and record.state == "scoring":
                assert self._scoring is not None
                self._scoring.add(self._task_of(record))
                return
            if job.kind == "scoring":
                self._folder.write_trial(failed(record, "what scored it died again and again"))
            else:
                # Tune ended it on the scheduler's word, in the middle of its training.
                self._folder.write_trial(stopped(record))
                self._stopped_points.add(self._point_of[job.key])
        self._trial_ended(job.key)

    def _next_ready(self) -> QueuedJob | None:
        while self._ready:
            job = self._ready.popleft()
            if job.point is None:
                return job
            if self._folder.stop_requested(job.key):
                self._trial_ended(job.key)
                continue
            if job.point in self._stopped_points:
                # The seeds of a point share one fate.
                record = self._folder.read_trial(job.key)
                assert record is not None
                self._folder.write_trial(stopped(record))
                self._trial_ended(job.key)
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
        self._point_of |= dict.fromkeys(todo, point.number)
        for trial_id in todo:
            self._queue_trial(trial_id, point.number)
        self._settle(point.number)

    def _queue_trial(self, trial_id: str, point: int) -> None:
        """Have a trial trained and scored, as far as it is not."""
        record = self._folder.read_trial(trial_id)
        assert record is not None
        if not is_trained(self._folder.root, record):
            kind: JobKind = "trial" if self._scoring is None else "training"
            self._ready.append(QueuedJob(kind, trial_id, point))
            return
        card, result = self._folder.read_scores(trial_id), train_result(self._folder.root, trial_id)
        assert result is not None
        is_younger = is_scored_since(self._folder.root, trial_id)
        if card is not None and is_younger and self._planner.is_scored_alike(card, record):
            # It was cut between its scores and its record.
            self._folder.write_trial(scored(trained(record, result), card.seconds))
            self._trial_ended(trial_id)
        elif self._scoring is None:
            self._ready.append(QueuedJob("trial", trial_id, point))
        else:
            self._scoring.add(self._task_of(record))

    def _unscored(self, beyond: int) -> QueuedJob | None:
        """A job to score what waits for a scorer, if more than `beyond` models do."""
        if self._scoring is None or not self._has_others_score:
            return None
        task = self._scoring.take(beyond=beyond)
        if task is None:
            return None
        if task.kind == "trial":
            return QueuedJob("scoring", task.key)
        untuned = {"settings": task.settings, "model_path": task.model_path}
        return QueuedJob("base", task.key, untuned=untuned)

    def _task_of(self, record: TrialRecord) -> ScoringTask:
        model_path = str(self._folder.model(record.id))
        return ScoringTask("trial", record.id, record.base, record.settings, model_path)

    def _scoring_ended(self, task: ScoringTask) -> None:
        if task.kind == "trial":
            self._trial_ended(task.key)

    def _trial_ended(self, trial_id: str) -> None:
        number = self._point_of[trial_id]
        self._open[number].running.discard(trial_id)
        self._settle(number)

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
                self._queue_base(base)
        if any(base.key not in known for base in new):
            records = [base.record for base in self._planner.bases]
            self._folder.write_sweep(sweep.model_copy(update={"bases": records}))

    def _queue_base(self, base: Base) -> None:
        if self._scoring is not None:
            task = ScoringTask("base", base.key, base.key, base.settings, base.model_path)
            self._scoring.add(task)
            return
        untuned = {"settings": base.settings, "model_path": base.model_path}
        self._ready.append(QueuedJob("base", base.key, untuned=untuned))

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
        if point.running or point.is_told:
            return
        point.is_told = True
        records = [self._folder.read_trial(trial_id) for trial_id in point.trial_ids]
        known = [record for record in records if record is not None]
        observation = observe(self._folder, point.searched, known, self._spec.search.objectives)
        self._search.tell(number, observation)
