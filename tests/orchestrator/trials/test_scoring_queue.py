"""Scoring in parallel with training: order, retries and records."""

import os
from pathlib import Path

import pytest
import torch
from torch.distributed import DistBackendError

from orchestrator.plan.planner import prepare_baseline
from orchestrator.record.folder import BaselineUsage
from orchestrator.spec.search_fields import BudgetConfig
from orchestrator.trials.run_trial import failure_kind, mark_started, mark_trained
from orchestrator.trials.scoring_queue import ScoringQueue, ScoringResult, ScoringTask
from orchestrator.trials.trial_queue import QueuedJob
from tests.orchestrator.trials.test_trial_queue import PLW, Bench, card
from trainers.foundation.errors import InputError, Problem, TrainingError
from trainers.foundation.files import write_json
from trainers.runs.results import TrainResult

RESULT = {
    "model_path": "none",
    "steps": 3,
    "num_tokens": 64,
    "seconds": 4.0,
    "tokens_per_second": 16.0,
    "completion_loss": 2.0,
    "prompt_loss": 3.0,
}
THREE = {"space": {PLW: [0, 0.1, 1]}}


class FakeScorers:
    """Scorers that finish when a test tells them to."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.works: list[ScoringTask] = []
        self.is_closed = False
        self._started: list[ScoringTask] = []
        self._finished: list[ScoringResult] = []

    def start(self, task: ScoringTask) -> bool:
        if len(self.works) == self.size:
            return False
        self.works.append(task)
        self._started.append(task)
        return True

    def started(self) -> list[ScoringTask]:
        found, self._started = self._started, []
        return found

    def finished(self) -> list[ScoringResult]:
        found, self._finished = self._finished, []
        return found

    def close(self) -> None:
        self.works.clear()
        self.is_closed = True

    def end(self, error: str | None = None, failure: str | None = None) -> None:
        """End the oldest scoring, after 5 s on a scorer."""
        self._finished.append(ScoringResult(self.works.pop(0), 5.0, error, failure))


class Desk(Bench):
    """A queue with scorers; the test trains and scores its trials by hand."""

    fake: FakeScorers

    @classmethod
    def make(cls, folder: Path, size: int = 1, **changes: object) -> "Desk":
        fake = FakeScorers(size)
        desk = cls(folder, scorers=fake, **{"search": THREE, **changes})  # type: ignore[arg-type]
        desk.fake = fake
        return desk

    def next_training(self) -> QueuedJob:
        job = self.queue.next()
        assert job is not None
        assert job.kind == "training"
        return job

    def train(self, job: QueuedJob) -> None:
        """Write the files of a trained trial and report the end of its job."""
        record = self.record(job)
        place = self.folder.trial(job.key)
        self.folder.model(job.key).mkdir(parents=True)
        write_json(place / "train.json", {"config": record.settings, "result": RESULT})
        attempted = record.model_copy(update={"attempts": 1})
        self.folder.write_trial(mark_trained(attempted, TrainResult(**RESULT)))  # type: ignore[arg-type]
        self.queue.job_ended(job)

    def write_scores(self, job: QueuedJob, loss: float = 2.0) -> None:
        [base] = self.bases
        write_json(self.folder.trial(job.key) / "scores.json", card(loss, base.scoring))

    def finish_base(self) -> None:
        """Finish the scoring of the untuned model, which comes first."""
        assert self.fake.works[0].kind == "base"
        self.fake.end()
        self.queue.poll_scoring()

    def finish(self, job: QueuedJob) -> None:
        """Finish the scoring of a trial."""
        assert self.fake.works[0].key == job.key
        self.write_scores(job)
        self.fake.end()
        self.queue.poll_scoring()

    def states(self) -> list[str]:
        return [trial.state for trial in self.folder.read_trials()]


def test_the_untuned_model_is_scored_while_the_first_trial_trains(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    assert [task.kind for task in desk.fake.works] == ["base"]
    assert desk.next_training().point == 0


def test_a_trained_trial_is_scored_while_the_next_one_trains(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    desk.finish_base()
    first = desk.next_training()
    desk.train(first)
    second = desk.next_training()
    assert [task.key for task in desk.fake.works] == [first.key]
    assert desk.states() == ["scoring", "pending", "pending"]
    desk.finish(first)
    assert desk.states() == ["done", "pending", "pending"]
    assert desk.record(first).scorer_seconds == 5
    assert desk.record(first).train_seconds == 4
    desk.train(second)
    assert [task.key for task in desk.fake.works] == [second.key]


def test_trial_that_waits_for_a_scorer_has_a_note(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    first = desk.next_training()
    desk.train(first)
    desk.queue.poll_scoring()
    assert desk.record(first).note == "waits for a scorer"
    desk.finish_base()
    desk.queue.poll_scoring()
    assert desk.record(first).note is None


def test_on_end_is_called_after_the_last_retry_or_with_the_scores(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    first, second = desk.next_training(), desk.next_training()
    desk.train(first)
    desk.train(second)
    scorers, ended = FakeScorers(2), list[str]()
    queue = ScoringQueue(desk.folder, scorers, {"crash": 1}, lambda task: ended.append(task.key))
    for job in (first, second):
        record = desk.record(job)
        model_path = str(desk.folder.model(job.key))
        queue.add(ScoringTask("trial", job.key, record.base, record.settings, model_path))
    scorers.end("the scoring process died", "crash")
    queue.poll()
    assert ended == []
    desk.write_scores(second)
    scorers.end()
    queue.poll()
    assert ended == [second.key]
    scorers.end("the scoring process died", "crash")
    queue.poll()
    assert ended == [second.key, first.key]
    assert not queue.has_work


def test_failed_scoring_is_retried_without_training_again(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    desk.finish_base()
    first = desk.next_training()
    desk.train(first)
    for _ in range(2):
        desk.fake.end("the scoring process died", "crash")
        desk.queue.poll_scoring()
    desk.finish(first)
    assert desk.states() == ["done", "pending", "pending"]
    assert desk.record(first).attempts == 1
    assert desk.record(first).scorer_seconds == 15
    assert desk.record(first).error is None


@pytest.mark.parametrize(("failure", "tries"), [("crash", 3), ("out_of_memory", 2), ("input", 1)])
def test_scoring_without_retries_left_fails_only_its_trial(
    tmp_path: Path, failure: str, tries: int
) -> None:
    desk = Desk.make(tmp_path)
    desk.finish_base()
    first = desk.next_training()
    desk.train(first)
    for _ in range(tries):
        assert desk.states()[0] == "scoring"
        desk.fake.end("it broke", failure)
        desk.queue.poll_scoring()
    assert desk.states() == ["failed", "pending", "pending"]
    assert desk.record(first).error == "it broke"
    assert desk.next_training().point == 1


def test_failed_scoring_of_the_untuned_model_does_not_stop_the_trials(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    desk.fake.end("it broke", "input")
    first = desk.next_training()
    desk.train(first)
    desk.finish(first)
    assert desk.states()[0] == "done"


@pytest.mark.parametrize("state", ["interrupted", "failed", "scoring"])
def test_the_next_run_scores_a_trained_trial_without_training_it(
    tmp_path: Path, state: str
) -> None:
    desk = Desk.make(tmp_path)
    first = desk.next_training()
    desk.train(first)
    cut = desk.record(first).model_copy(update={"state": state, "error": "it broke"})
    desk.folder.write_trial(cut)
    again = Desk.make(tmp_path)
    again.finish_base()
    assert again.next_training().point == 1
    assert [task.key for task in again.fake.works] == [first.key]
    again.finish(first)
    assert again.states() == ["done", "pending", "pending"]
    assert again.record(first).attempts == 1
    assert again.record(first).error is None


@pytest.mark.parametrize("has_scorers", [True, False])
def test_trial_interrupted_after_its_scores_is_not_scored_again(
    tmp_path: Path, has_scorers: bool
) -> None:
    desk = Desk.make(tmp_path)
    first = desk.next_training()
    desk.train(first)
    desk.write_scores(first)
    again = Desk.make(tmp_path) if has_scorers else Bench(tmp_path, search=THREE)
    second = again.next_trial()
    assert second is not None
    assert second.key != first.key
    assert again.record(first).state == "done"
    assert again.record(first).eval_seconds == 1


def test_scores_older_than_the_model_are_replaced(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    first = desk.next_training()
    desk.train(first)
    desk.write_scores(first)
    os.utime(desk.folder.trial(first.key) / "scores.json", (1, 1))
    again = Desk.make(tmp_path)
    again.finish_base()
    again.next_training()
    assert [task.key for task in again.fake.works] == [first.key]


def test_model_trained_with_other_settings_is_trained_again(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    first = desk.next_training()
    desk.train(first)
    other = {"config": {"seed": 9}, "result": RESULT}
    write_json(desk.folder.trial(first.key) / "train.json", other)
    assert Desk.make(tmp_path).next_training().key == first.key


def test_jobs_score_models_that_exceed_the_scorers(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    first, second = desk.next_training(), desk.next_training()
    desk.train(first)
    desk.train(second)
    # The scorer works on the untuned model, and two trials wait: one more than scorers.
    helping = desk.queue.next()
    assert helping == QueuedJob("scoring", first.key)
    assert desk.next_training().point == 2
    desk.finish_base()
    assert [task.key for task in desk.fake.works] == [second.key]
    desk.write_scores(first)
    desk.folder.write_trial(desk.record(first).model_copy(update={"state": "done"}))
    desk.queue.job_ended(helping)
    assert desk.states() == ["done", "scoring", "pending"]


def test_jobs_score_waiting_models_after_the_last_training(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, search={"space": {PLW: [0]}})
    first = desk.next_training()
    desk.train(first)
    assert desk.queue.next() == QueuedJob("scoring", first.key)
    assert desk.queue.next() is None
    assert desk.queue.is_scoring


def test_jobs_do_not_score_if_workers_do_not_match_scorers(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, search={"space": {PLW: [0]}}, workers_score_too=False)
    first = desk.next_training()
    desk.train(first)
    assert desk.queue.next() is None
    desk.finish_base()
    desk.finish(first)
    assert desk.states() == ["done"]
    assert not desk.queue.is_scoring


def test_failed_scorings_stay_with_the_scorers(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, search={"space": {PLW: [0]}})
    desk.finish_base()
    first = desk.next_training()
    desk.train(first)
    desk.fake.end("the scoring process died", "crash")
    assert desk.queue.next() is None
    assert [task.key for task in desk.fake.works] == [first.key]


def test_stop_ends_the_scorers_and_the_next_run_scores_trained_trials(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    first, second = desk.next_training(), desk.next_training()
    desk.train(first)
    desk.folder.request_stop(None)
    desk.queue.poll_scoring()
    assert desk.fake.is_closed
    assert not desk.queue.is_scoring
    # Its driver reports the end later.
    desk.train(second)
    assert desk.states() == ["interrupted", "interrupted", "pending"]
    assert desk.record(second).train_seconds == 4
    assert desk.fake.works == []


def test_trial_stopped_while_it_waits_for_a_scorer_is_not_scored(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    first = desk.next_training()
    desk.train(first)
    desk.folder.request_stop(first.key)
    desk.finish_base()
    assert desk.fake.works == []
    assert desk.states() == ["interrupted", "pending", "pending"]


def test_gpu_hours_of_scorers_count_for_the_budget(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, budget=BudgetConfig(gpu_hours=1))
    first = desk.next_training()
    # Half a GPU for two hours.
    record = desk.record(first).model_copy(update={"state": "done", "scorer_seconds": 7200})
    desk.folder.write_trial(record)
    desk.queue.job_ended(first)
    assert desk.queue.next() is None
    assert desk.queue.end_reason == "search.budget.gpu_hours is spent: 1 of 1"


def test_gpu_hours_of_untuned_models_count_for_the_budget(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, budget=BudgetConfig(gpu_hours=1))
    [base] = desk.bases
    desk.finish_base()
    assert desk.folder.read_baseline_usage(base.key) == BaselineUsage(scorer_seconds=5)
    # A scorer held half a GPU for an hour, and a trial's workers two GPUs for a quarter of an hour.
    desk.folder.add_baseline_usage(base.key, BaselineUsage(busy_seconds=900, scorer_seconds=3595))
    assert desk.queue.next() is None
    assert desk.queue.end_reason == "search.budget.gpu_hours is spent: 1 of 1"


def test_baseline_that_is_scored_again_keeps_its_usage(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    [base] = desk.bases
    desk.folder.add_baseline_usage(base.key, BaselineUsage(busy_seconds=60))
    write_json(desk.folder.baseline(base.key) / "scores.json", card(2.0, {}))
    assert not base.has_scores
    prepare_baseline(desk.folder, base)
    assert desk.folder.read_baseline_scores(base.key) is None
    assert desk.folder.read_baseline_usage(base.key) == BaselineUsage(busy_seconds=60)


def test_record_shows_whether_a_scorer_scores_the_trial(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    desk.finish_base()
    first = desk.next_training()
    assert not desk.record(first).is_scored_beside
    desk.train(first)
    assert desk.record(first).is_scored_beside
    desk.finish(first)
    assert desk.record(first).is_scored_beside
    assert not mark_started(desk.record(first)).is_scored_beside


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out_of_memory"),
        (DistBackendError("NCCL error: Cuda failure 2 'out of memory'"), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "out_of_memory",
        ),
        (TrainingError("nan", "divergence"), "divergence"),
        (InputError(Problem(message="no such template")), "input"),
        (RuntimeError("it broke"), "crash"),
    ],
)
def test_failure_kinds(error: Exception, kind: str) -> None:
    assert failure_kind(error) == kind
