"""Queue a sweep's jobs: one trial for each searched point and seed, within the budget.

Independent of Ray. The queue reads the outcome of a trial from the sweep's folder.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan.history import History, observe, plan_point
from orchestrator.plan.planner import Baseline, Planner, TrialPlan, pending_record, prepare_baseline
from orchestrator.record.folder import STOP_REQUESTED, SweepFolder, TrialRecord
from orchestrator.search.budget import Budget
from orchestrator.search.methods import make_search
from orchestrator.search.points import Observation, Point
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.trials.awaited_opponents import AwaitedOpponents
from orchestrator.trials.queued_job import QueuedJob
from orchestrator.trials.retention import find_removals, remove
from orchestrator.trials.run_trial import (
    JobKind,
    is_scored_after_training,
    is_trained,
    mark_failed,
    mark_scored,
    mark_stopped,
    mark_trained,
    train_result,
)
from orchestrator.trials.scoring_queue import ScoringQueue
from orchestrator.trials.shared_files import invisible_reason, read_when_visible
from trainers.foundation.errors import InputError
from trainers.foundation.object_store import StorageError

# States of a trial without remaining jobs.
ENDED = ("done", "failed", "stopped", "interrupted")


@dataclass
class _OpenPoint:
    """A point of the search with its trials, one for each seed."""

    searched: dict[str, Any]
    trial_ids: list[str]
    running: set[str] = field(default_factory=set)
    is_reported: bool = False


class TrialQueue:
    """Requests points from the search when a slot is free, and reports their scores to it.

    With scorers, a job only trains its trial, and another job scores it. The search receives a
    point once all its trials are scored. A model whose opponent is the trial with PLW 0 is scored
    after that trial. `end_reason` states why no further trial starts; None if all are done.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: SweepFolder,
        planner: Planner,
        history: History,
        budget: Budget,
        *,
        num_slots: int,
        num_scorers: int = 0,
        slots_help: bool = True,
    ) -> None:
        """Create the queue.

        Args:
            history: the known points of a sampling search; empty for a grid.
            num_slots: maximum number of jobs at once that use a trial's resources.
            num_scorers: maximum number of jobs at once that use a scorer's; 0 if each job scores
                the model it trains.
            slots_help: whether models are also scored in slots if too many wait for a scorer.
        """
        self._spec, self._folder = spec, folder
        self._planner, self._budget = planner, budget
        self._search = make_search(spec.search, history.known, history.num_own, history.unfinished)
        self._scoring = ScoringQueue(folder, num_scorers, slots_help=slots_help)
        self._awaited = AwaitedOpponents(folder, self._has_requested_scores)
        self._num_slots, self._num_in_slots, self._num_running = num_slots, 0, 0
        self._ready: deque[QueuedJob] = deque()
        self._open: dict[int, _OpenPoint] = {}
        self._point_of: dict[str, int] = {}
        self._baselines: set[str] = set()
        self._queue_new_bases()
        self._stopped_points: set[int] = set()
        self._is_training_over = False
        self.end_reason: str | None = None

    @property
    def is_finished(self) -> bool:
        """True if no further job will start."""
        is_idle = self._num_running == 0 and not self._ready and self._scoring.is_empty
        return (self._is_training_over and is_idle) or self._folder.stop_requested(None)

    def next(self) -> QueuedJob | None:
        """Return a job that can start now; None if there is none."""
        if self._folder.stop_requested(None):
            if not self._is_training_over:
                self.end_reason = STOP_REQUESTED
            return None
        for trial_id in self._scoring.remove_stopped():
            self._trial_ended(trial_id)
        job = self._next_job()
        if job is not None:
            self._num_running += 1
            self._num_in_slots += not job.on_scorer
        return job

    def _next_job(self) -> QueuedJob | None:
        while True:
            job = self._scoring.next_on_scorer()
            if job is not None or self._num_in_slots == self._num_slots:
                return job
            job = self._scoring.next_in_slot(is_training_over=False) or self._next_ready()
            if job is not None:
                return job
            if not self._is_training_over:
                self._open_next_point()
            if self._is_training_over:
                return self._scoring.next_on_scorer() or self._scoring.next_in_slot(
                    is_training_over=True
                )

    def _open_next_point(self) -> None:
        reason = self._budget.reached_limit(self._folder)
        point = None if reason is not None else self._search.ask()
        if point is not None:
            self._open_point(point)
            return
        self._is_training_over = True
        self.end_reason = reason or self._search.ended

    def job_ended(
        self, job: QueuedJob, *, record: TrialRecord | None = None, has_died: bool = False
    ) -> None:
        """Process the end of a job; the trial's record contains its outcome.

        Args:
            record: the record that the driver sent; None if it is to be read from its file.
            has_died: whether its processes died repeatedly, before they could record an outcome.
        """
        self._num_running -= 1
        self._num_in_slots -= not job.on_scorer
        self._scoring.job_ended(job)
        if job.kind == "base":
            return
        if record is not None:
            # The driver wrote the same, but this node may still see an old version of its file.
            self._folder.write_trial(self._with_visible_scores(record))
        record = self._folder.read_trial(job.key)
        if record is not None and record.state not in ENDED:
            if job.kind == "training" and record.state == "scoring":
                self._queue_scoring(QueuedJob("scoring", job.key))
                return
            if has_died or job.kind == "scoring":
                reason = "the process that ran it died repeatedly; see sweep.log"
                self._folder.write_trial(mark_failed(record, reason, "crash"))
            else:
                # Tune ended the trial during training, because the scheduler stopped it.
                self._folder.write_trial(mark_stopped(record))
                self._stopped_points.add(self._point_of[job.key])
        self._trial_ended(job.key)

    def _with_visible_scores(self, record: TrialRecord) -> TrialRecord:
        """Return the record once this node sees the scores of a finished trial."""
        if record.state != "done":
            return record
        scores = read_when_visible(lambda: self._folder.read_scores(record.id))
        if scores is None:
            return mark_failed(record, invisible_reason("scores.json"), "crash")
        return record

    def _next_ready(self) -> QueuedJob | None:
        while self._ready:
            job = self._ready.popleft()
            if job.point is None:
                return job
            if self._folder.stop_requested(job.key):
                self._trial_ended(job.key)
                continue
            if job.point in self._stopped_points:
                # All seeds of a point are stopped together.
                record = self._folder.read_trial(job.key)
                assert record is not None
                self._folder.write_trial(mark_stopped(record))
                self._trial_ended(job.key)
                continue
            return job
        return None

    def _open_point(self, point: Point) -> None:
        try:
            plans = plan_point(self._spec, self._planner, point.searched)
        except InputError:
            # The combination of values violates a rule that the ranges cannot express.
            self._search.tell(point.number, Observation(point.searched, "invalid", None))
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
        self._report_if_complete(point.number)

    def _queue_trial(self, trial_id: str, point: int) -> None:
        """Queue the missing steps of a trial: training, scoring, or both."""
        record = self._folder.read_trial(trial_id)
        assert record is not None
        scoring = QueuedJob("scoring", trial_id)
        scores_later = self._scoring.has_scorers or self._awaited.find_awaited(scoring) is not None
        if not is_trained(self._folder.root, record):
            kind: JobKind = "training" if scores_later else "trial"
            self._ready.append(QueuedJob(kind, trial_id, point))
            return
        card, result = self._folder.read_scores(trial_id), train_result(self._folder.root, trial_id)
        assert result is not None
        is_younger = is_scored_after_training(self._folder.root, trial_id)
        if card is not None and is_younger and self._has_requested_scores(record):
            # The trial was interrupted after its scores were written but before its record was.
            self._folder.write_trial(mark_scored(mark_trained(record, result), card.seconds))
            self._trial_ended(trial_id)
        elif scores_later:
            self._queue_scoring(scoring)
        else:
            self._ready.append(QueuedJob("trial", trial_id, point))

    def _queue_scoring(self, job: QueuedJob) -> None:
        """Queue the scoring of a model, unless it has to wait for its opponent."""
        awaited = self._awaited.find_awaited(job)
        if awaited is not None:
            self._awaited.add(awaited, job)
            if awaited in self._point_of and not self._is_running(awaited):
                # It ended without outputs.
                self._release(awaited)
        elif self._scoring.has_scorers:
            self._scoring.add(job)
        else:
            self._ready.append(job)

    def _release(self, trial_id: str) -> None:
        """Queue or end the jobs that wait for a trial that has ended."""
        to_score, without_opponent = self._awaited.release(trial_id)
        for job in to_score:
            self._queue_scoring(job)
        for job in without_opponent:
            if job.kind != "base":
                self._trial_ended(job.key)

    def _has_requested_scores(self, record: TrialRecord) -> bool:
        return self._planner.has_requested_scores(self._folder.read_scores(record.id), record)

    def _is_running(self, trial_id: str) -> bool:
        """Return whether jobs of an opened trial remain."""
        return trial_id in self._open[self._point_of[trial_id]].running

    def _trial_ended(self, trial_id: str) -> None:
        self._drop_models()
        number = self._point_of[trial_id]
        self._open[number].running.discard(trial_id)
        self._report_if_complete(number)
        self._release(trial_id)

    def _drop_models(self) -> None:
        """Delete the models that `keep_models` does not keep, once their trials are scored."""
        keep = self._spec.keep_models
        if keep == "all":
            return
        # Read only the few trials that have models: this runs after each trial.
        ids = self._folder.read_sweep().trial_ids
        records = [self._folder.read_trial(one) for one in ids if self._folder.model(one).is_dir()]
        trials = [record for record in records if record is not None]
        removals = [one for one in find_removals(self._folder, keep, trials) if one.is_model]
        try:
            remove(self._folder, removals)
        except StorageError as error:
            print(f"{error}; its models are deleted with the next one", flush=True)

    def _queue_new_bases(self) -> None:
        """Record the planner's new baselines, and queue those without scores."""
        new = [base for base in self._planner.baselines if base.key not in self._baselines]
        if not new:
            return
        self._baselines |= {base.key for base in new}
        sweep = self._folder.read_sweep()
        known = {base.key for base in sweep.bases}
        for base in new:
            if base.key not in known:
                prepare_baseline(self._folder, base)
            if not base.has_scores:
                self._queue_base(base)
        if any(base.key not in known for base in new):
            records = [base.record for base in self._planner.baselines]
            self._folder.write_sweep(sweep.model_copy(update={"bases": records}))

    def _queue_base(self, base: Baseline) -> None:
        untuned = {
            "settings": base.settings,
            "model_path": base.model_path,
            "opponent": base.opponent,
        }
        self._queue_scoring(QueuedJob("base", base.key, untuned=untuned))

    def _write(self, plans: Sequence[TrialPlan]) -> None:
        """Write the trials' records, and add their ids to the sweep's record."""
        for plan in plans:
            if self._folder.read_trial(plan.id) is None:
                self._folder.write_trial(pending_record(plan))
        sweep = self._folder.read_sweep()
        new = [plan.id for plan in plans if plan.id not in sweep.trial_ids]
        if new:
            ids = [*sweep.trial_ids, *new]
            self._folder.write_sweep(sweep.model_copy(update={"trial_ids": ids}))

    def _report_if_complete(self, number: int) -> None:
        """Report a point to the search once all its trials have ended."""
        point = self._open[number]
        if point.running or point.is_reported:
            return
        point.is_reported = True
        records = [self._folder.read_trial(trial_id) for trial_id in point.trial_ids]
        known = [record for record in records if record is not None]
        observation = observe(self._folder, point.searched, known, self._spec.search.objectives)
        self._search.tell(number, observation)
