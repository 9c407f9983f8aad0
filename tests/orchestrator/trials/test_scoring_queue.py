"""Scoring in parallel with training: order and records."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import DistBackendError

from orchestrator.plan.planner import prepare_baseline
from orchestrator.record.folder import BaselineUsage
from orchestrator.spec.search_fields import BudgetConfig
from orchestrator.trials.queued_job import QueuedJob
from orchestrator.trials.run_trial import (
    failure_kind,
    mark_failed,
    mark_scored,
    mark_started,
    mark_trained,
)
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


class Desk(Bench):
    """A queue with scorers; the test trains and scores its trials by hand."""

    def __init__(self, folder: Path, num_scorers: int = 1, **changes: Any) -> None:
        super().__init__(folder, **{"search": THREE, "num_scorers": num_scorers, **changes})
        self.on_scorers: list[QueuedJob] = []
        self.in_slots: list[QueuedJob] = []

    def start_jobs(self) -> None:
        """Start all jobs that can start now."""
        while (job := self.queue.next()) is not None:
            (self.on_scorers if job.on_scorer else self.in_slots).append(job)

    def train_next(self) -> QueuedJob:
        """Train the trial that has been in a slot for the longest, and start what follows."""
        self.start_jobs()
        job = self.in_slots.pop(0)
        assert job.kind == "training"
        record = self.record(job)
        place = self.folder.trial(job.key)
        self.folder.model(job.key).mkdir(parents=True)
        write_json(place / "train.json", {"config": record.settings, "result": RESULT})
        attempted = record.model_copy(update={"attempts": 1})
        trained = mark_trained(attempted, TrainResult(**RESULT))  # type: ignore[arg-type]
        self.queue.job_ended(job, record=trained)
        self.start_jobs()
        return job

    def write_scores(self, job: QueuedJob, loss: float = 2.0) -> None:
        [base] = self.bases
        write_json(self.folder.trial(job.key) / "scores.json", card(loss, base.scoring))

    def finish_base(self) -> None:
        """Finish the scoring of the untuned model, which comes first."""
        self.start_jobs()
        job = self.on_scorers.pop(0)
        assert job.kind == "base"
        self.queue.job_ended(job)
        self.start_jobs()

    def score_next(self, jobs: list[QueuedJob]) -> None:
        """Finish the first of these scorings, and start what follows."""
        job = jobs.pop(0)
        assert job.kind == "scoring"
        self.write_scores(job)
        self.queue.job_ended(job, record=mark_scored(self.record(job), 1.0))
        self.start_jobs()

    def states(self) -> list[str]:
        return [trial.state for trial in self.folder.read_trials()]


def keys(jobs: list[QueuedJob]) -> list[str]:
    return [job.key for job in jobs]


def test_the_untuned_model_is_scored_while_the_first_trial_trains(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    desk.start_jobs()
    assert [job.kind for job in desk.on_scorers] == ["base"]
    assert [(job.kind, job.point) for job in desk.in_slots] == [("training", 0)]


def test_a_trained_trial_is_scored_while_the_next_one_trains(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    desk.finish_base()
    first = desk.train_next()
    assert keys(desk.on_scorers) == [first.key]
    assert [job.point for job in desk.in_slots] == [1]
    assert desk.states() == ["scoring", "pending", "pending"]
    desk.score_next(desk.on_scorers)
    assert desk.states() == ["done", "pending", "pending"]
    assert desk.record(first).train_seconds == 4
    second = desk.train_next()
    assert keys(desk.on_scorers) == [second.key]


def test_a_sweep_is_finished_once_its_last_model_is_scored(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1, search={"space": {PLW: [0]}})
    desk.finish_base()
    desk.train_next()
    assert not desk.queue.is_finished
    desk.score_next(desk.on_scorers)
    assert desk.queue.is_finished
    assert desk.states() == ["done"]


def test_a_trial_that_waits_for_a_scorer_has_a_note(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    first = desk.train_next()
    assert desk.on_scorers[0].kind == "base"
    assert desk.record(first).note == "waits for a scorer"


def test_a_failed_scoring_fails_only_its_trial(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    desk.finish_base()
    first = desk.train_next()
    failed = mark_failed(desk.record(first), "it broke", "crash")
    desk.queue.job_ended(desk.on_scorers.pop(), record=failed)
    desk.train_next()
    desk.score_next(desk.on_scorers)
    assert desk.states() == ["failed", "done", "pending"]
    assert desk.record(first).error == "it broke"


def test_a_scoring_whose_driver_dies_fails_its_trial(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    desk.finish_base()
    first = desk.train_next()
    desk.queue.job_ended(desk.on_scorers.pop(), has_died=True)
    assert desk.states()[0] == "failed"
    assert desk.record(first).failure == "crash"


@pytest.mark.parametrize("state", ["interrupted", "failed", "scoring"])
def test_the_next_run_scores_a_trained_trial_without_training_it(
    tmp_path: Path, state: str
) -> None:
    desk = Desk(tmp_path, num_slots=1)
    first = desk.train_next()
    cut = desk.record(first).model_copy(update={"state": state, "error": "it broke"})
    desk.folder.write_trial(cut)
    again = Desk(tmp_path, num_slots=1)
    again.finish_base()
    assert [job.point for job in again.in_slots] == [1]
    assert keys(again.on_scorers) == [first.key]
    again.score_next(again.on_scorers)
    assert again.states() == ["done", "pending", "pending"]
    assert again.record(first).attempts == 1
    assert again.record(first).error is None


@pytest.mark.parametrize("has_scorers", [True, False])
def test_trial_interrupted_after_its_scores_is_not_scored_again(
    tmp_path: Path, has_scorers: bool
) -> None:
    desk = Desk(tmp_path, num_slots=1)
    first = desk.train_next()
    desk.write_scores(first)
    again = Desk(tmp_path) if has_scorers else Bench(tmp_path, search=THREE)
    second = again.next_trial()
    assert second is not None
    assert second.key != first.key
    assert again.record(first).state == "done"
    assert again.record(first).eval_seconds == 1


def test_scores_older_than_the_model_are_replaced(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    first = desk.train_next()
    desk.write_scores(first)
    os.utime(desk.folder.trial(first.key) / "scores.json", (1, 1))
    again = Desk(tmp_path, num_slots=1)
    again.finish_base()
    assert keys(again.on_scorers) == [first.key]


def test_model_trained_with_other_settings_is_trained_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    first = desk.train_next()
    other = {"config": {"seed": 9}, "result": RESULT}
    write_json(desk.folder.trial(first.key) / "train.json", other)
    again = Desk(tmp_path, num_slots=1)
    again.start_jobs()
    assert keys(again.in_slots) == [first.key]


def test_slots_score_models_that_exceed_the_scorers(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=2, search={"space": {PLW: [0, 0.1, 0.5, 1]}})
    first = desk.train_next()
    assert [job.kind for job in desk.in_slots] == ["training", "training"]
    # The scorer works on the untuned model, and two trials wait: one more than scorers.
    second = desk.train_next()
    assert desk.in_slots[1] == QueuedJob("scoring", first.key)
    assert [job.point for job in desk.in_slots] == [2, None]
    desk.finish_base()
    assert keys(desk.on_scorers) == [second.key]
    desk.score_next(desk.in_slots[1:])
    assert desk.states() == ["done", "scoring", "pending", "pending"]


def test_slots_score_waiting_models_after_the_last_training(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1, search={"space": {PLW: [0]}})
    first = desk.train_next()
    assert desk.on_scorers[0].kind == "base"
    assert desk.in_slots == [QueuedJob("scoring", first.key)]
    assert not desk.queue.is_finished


def test_slots_do_not_score_if_they_do_not_match_scorers(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1, search={"space": {PLW: [0]}}, slots_help=False)
    first = desk.train_next()
    assert desk.in_slots == []
    desk.finish_base()
    assert keys(desk.on_scorers) == [first.key]
    desk.score_next(desk.on_scorers)
    assert desk.states() == ["done"]
    assert desk.queue.is_finished


def test_slots_and_scorers_never_run_more_jobs_than_they_are(tmp_path: Path) -> None:
    weights = [index / 20 for index in range(20)]
    desk = Desk(tmp_path, num_slots=3, num_scorers=2, search={"space": {PLW: weights}})
    desk.start_jobs()
    while desk.in_slots or desk.on_scorers:
        assert len(desk.in_slots) <= 3
        assert len(desk.on_scorers) <= 2
        if desk.on_scorers and desk.on_scorers[0].kind == "base":
            desk.finish_base()
        elif desk.on_scorers and len(desk.folder.read_trials()) % 2:
            desk.score_next(desk.on_scorers)
        elif desk.in_slots and desk.in_slots[0].kind == "training":
            desk.train_next()
        else:
            desk.score_next(desk.in_slots or desk.on_scorers)
    assert desk.queue.is_finished
    assert desk.states() == ["done"] * 20


def test_no_model_is_scored_after_a_stop_request(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=2)
    desk.finish_base()
    desk.folder.request_stop(None)
    assert desk.queue.next() is None
    assert desk.queue.is_finished
    assert desk.queue.end_reason == "a stop was requested"


def test_a_trial_stopped_while_it_waits_for_a_scorer_is_not_scored(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    first = desk.train_next()
    desk.folder.request_stop(first.key)
    desk.finish_base()
    assert desk.on_scorers == []
    assert desk.states() == ["interrupted", "pending", "pending"]


def test_the_record_in_a_message_counts_if_its_file_is_old(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    desk.finish_base()
    first = desk.train_next()
    old = desk.record(first)
    desk.write_scores(first)
    desk.folder.write_trial(old)
    desk.queue.job_ended(desk.on_scorers.pop(), record=mark_scored(old, 1.0))
    assert desk.states()[0] == "done"


def test_gpu_hours_of_scorers_count_for_the_budget(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1, budget=BudgetConfig(gpu_hours=1))
    desk.finish_base()
    [first] = desk.in_slots
    # Half a GPU for two hours.
    changes = {"state": "done", "scorer_seconds": 7200}
    desk.queue.job_ended(first, record=desk.record(first).model_copy(update=changes))
    assert desk.queue.next() is None
    assert desk.queue.end_reason == "search.budget.gpu_hours is spent: 1 of 1"


def test_gpu_hours_of_untuned_models_count_for_the_budget(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1, budget=BudgetConfig(gpu_hours=1))
    [base] = desk.bases
    # A scorer held half a GPU for an hour, and a trial's workers two GPUs for a quarter of an hour.
    desk.folder.add_baseline_usage(base.key, BaselineUsage(busy_seconds=900, scorer_seconds=3600))
    desk.start_jobs()
    assert desk.in_slots == []
    assert desk.queue.end_reason == "search.budget.gpu_hours is spent: 1 of 1"


def test_baseline_that_is_scored_again_keeps_its_usage(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    [base] = desk.bases
    desk.folder.add_baseline_usage(base.key, BaselineUsage(busy_seconds=60))
    write_json(desk.folder.baseline(base.key) / "scores.json", card(2.0, {}))
    assert not base.has_scores
    prepare_baseline(desk.folder, base)
    assert desk.folder.read_baseline_scores(base.key) is None
    assert desk.folder.read_baseline_usage(base.key) == BaselineUsage(busy_seconds=60)


def test_record_shows_whether_a_scorer_scores_the_trial(tmp_path: Path) -> None:
    desk = Desk(tmp_path, num_slots=1)
    desk.finish_base()
    assert not desk.record(desk.in_slots[0]).is_scored_beside
    first = desk.train_next()
    assert desk.record(first).is_scored_beside
    desk.score_next(desk.on_scorers)
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
