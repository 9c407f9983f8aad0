"""Models are scored after the trial with PLW 0, whose outputs are their opponent's in PandaLM."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.trials.queued_job import QueuedJob
from orchestrator.trials.run_trial import mark_trained
from tests.orchestrator.trials.test_scoring_queue import RESULT
from tests.orchestrator.trials.test_trial_queue import PLW, Bench
from trainers.foundation.files import write_json
from trainers.runs.results import TrainResult

OFF = {"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None}
JUDGE = {"base_url": "http://127.0.0.1:9/v1", "model": "judge", "api_key_env": None}
EVALS = {"heldout": {"examples": 8}, "pandalm_prompts": {}, "judge": JUDGE, **OFF}


def make(folder: Path, weights: list[float], **changes: Any) -> Bench:
    return Bench(folder, search={"space": {PLW: weights}}, evals=EVALS, **changes)


def train(bench: Bench, job: QueuedJob) -> None:
    """Write the files of a trained trial and report the end of its job."""
    record = bench.record(job)
    bench.folder.model(job.key).mkdir(parents=True)
    trained = {"config": record.settings, "result": RESULT}
    write_json(bench.folder.trial(job.key) / "train.json", trained)
    bench.queue.job_ended(job, record=mark_trained(record, TrainResult(**RESULT)))  # type: ignore[arg-type]


def started(desk: Bench) -> QueuedJob:
    job = desk.queue.next()
    assert job is not None
    return job


def test_a_model_is_trained_before_and_scored_after_its_opponent(tmp_path: Path) -> None:
    desk = make(tmp_path, [0.1, 0])
    other, plw_0 = started(desk), started(desk)
    # The untuned model waits, too.
    assert [other.kind, plw_0.kind] == ["training", "trial"]
    train(desk, other)
    assert desk.record(other).state == "scoring"
    assert desk.record(other).note == f"waits for the outputs of trial {plw_0.key} (PLW 0)"
    assert desk.queue.next() is None
    assert not desk.queue.is_finished
    desk.end(plw_0, "done")
    base, scoring = started(desk), started(desk)
    assert (base.kind, base.untuned["opponent"]) == ("base", plw_0.key)
    assert scoring == QueuedJob("scoring", other.key)
    assert desk.record(scoring).opponent == plw_0.key
    desk.queue.job_ended(base)
    desk.end(scoring, "done")
    assert desk.queue.next() is None
    assert desk.queue.is_finished
    assert desk.queue.end_reason is None


def test_a_model_trained_after_its_opponent_is_scored_in_the_same_job(tmp_path: Path) -> None:
    desk = make(tmp_path, [0, 0.1])
    plw_0 = started(desk)
    desk.end(plw_0, "done")
    assert [started(desk).kind, started(desk).kind] == ["base", "trial"]


def test_a_later_run_scores_a_trained_model_after_its_opponent(tmp_path: Path) -> None:
    desk = make(tmp_path, [0.1, 0])
    other, _ = started(desk), started(desk)
    train(desk, other)
    again = make(tmp_path, [0.1, 0])
    plw_0 = started(again)
    assert again.record(plw_0).searched == {PLW: 0}
    assert again.queue.next() is None
    assert not again.queue.is_finished
    again.end(plw_0, "done")
    assert [started(again).kind, started(again).key] == ["base", other.key]


def test_scorers_take_a_model_after_its_opponent(tmp_path: Path) -> None:
    desk = make(tmp_path, [0.1, 0], num_scorers=2)
    other, plw_0 = started(desk), started(desk)
    assert [other.kind, plw_0.kind] == ["training", "training"]
    train(desk, other)
    assert desk.queue.next() is None
    train(desk, plw_0)
    scoring = started(desk)
    assert (scoring.kind, scoring.key, scoring.on_scorer) == ("scoring", plw_0.key, True)
    assert desk.queue.next() is None
    desk.end(scoring, "done")
    base, last = started(desk), started(desk)
    assert [(job.kind, job.on_scorer) for job in (base, last)] == [
        ("base", True),
        ("scoring", True),
    ]
    assert last.key == other.key
    assert not desk.queue.is_finished


@pytest.mark.parametrize(
    ("state", "expected", "error"),
    [("failed", "failed", "has failed"), ("interrupted", "interrupted", None)],
)
@pytest.mark.parametrize("is_trained_first", [True, False])
def test_without_its_opponents_outputs_a_model_has_no_scores(
    tmp_path: Path, state: str, expected: str, error: str | None, is_trained_first: bool
) -> None:
    desk = make(tmp_path, [0.1, 0])
    other, plw_0 = started(desk), started(desk)
    for job in (other, plw_0) if is_trained_first else (plw_0, other):
        if job is other:
            train(desk, other)
        else:
            desk.end(plw_0, state)
    record = desk.record(other)
    assert record.state == expected
    assert record.error == (
        error and f"the opponent in pandalm_prompts, trial {plw_0.key} with PLW 0, {error}"
    )
    assert desk.queue.next() is None
    assert desk.queue.is_finished
