"""The order of evaluations: a judge works while the other evaluations use the device."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from evals.results.evaluation import Evaluation, EvaluationResult
from evals.results.result_store import ResultStore
from evals.results.run_evaluations import run_evaluations
from trainers.foundation.errors import InputError, TrainingError

DEADLINE_S = 60.0
NOTHING = EvaluationResult(scores=[], samples=[])


def evaluation(
    name: str, run: Callable[..., None], prepare: Callable[..., None] | None = None
) -> Evaluation:
    def run_to_result(*, on_progress: Any) -> EvaluationResult:
        run(on_progress)
        return NOTHING

    def prepared(*, on_progress: Any) -> None:
        assert prepare is not None
        prepare(on_progress)

    return Evaluation(
        name=name, num_items=4, run=run_to_result, prepare=prepared if prepare else None
    )


def run_all(
    evaluations: list[Evaluation],
    folder: Path,
    *,
    in_background: bool = True,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    on_reused: Any = None,
) -> list[str]:
    store = ResultStore(folder, {})
    finished = run_evaluations(
        evaluations, store, on_progress, on_reused, in_background=in_background
    )
    return [one.name for one in finished]


def test_a_judge_works_while_another_evaluation_runs(tmp_path: Path) -> None:
    events: list[str] = []
    judging, computing = Event(), Event()

    def generate(on_progress: Any) -> None:
        events.append("outputs")

    def judge(on_progress: Any) -> None:
        judging.set()
        assert computing.wait(DEADLINE_S)
        events.append("verdicts")

    def compute(on_progress: Any) -> None:
        events.append("log-likelihoods")
        computing.set()
        assert judging.wait(DEADLINE_S)

    evaluations = [evaluation("heldout", compute), evaluation("judged", judge, generate)]
    assert run_all(evaluations, tmp_path) == ["heldout", "judged"]
    assert events == ["outputs", "log-likelihoods", "verdicts"]


def test_a_judge_on_the_same_device_works_after_the_others(tmp_path: Path) -> None:
    events: list[str] = []
    evaluations = [
        evaluation("judged", lambda _: events.append("judge"), lambda _: events.append("outputs")),
        evaluation("heldout", lambda _: events.append("log-likelihoods")),
    ]
    assert run_all(evaluations, tmp_path, in_background=False) == ["judged", "heldout"]
    assert events == ["outputs", "log-likelihoods", "judge"]


def test_progress_never_decreases(tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []

    def half(on_progress: Any) -> None:
        on_progress(1, 4)
        on_progress(2, 4)

    def judge(on_progress: Any) -> None:
        on_progress(2, 4)
        on_progress(4, 4)

    run_all(
        [evaluation("judged", judge, half)],
        tmp_path,
        on_progress=lambda name, done, total: reported.append((name, done, total)),
    )
    assert reported == [("judged", done, 4) for done in (0, 1, 2, 4)]


def test_a_failure_stops_the_judge_at_its_next_reply(tmp_path: Path) -> None:
    judging, failed = Event(), Event()

    def judge(on_progress: Any) -> None:
        judging.set()
        assert failed.wait(DEADLINE_S)
        for reply in count(1):  # Ends only by an exception.
            on_progress(reply, 2**62)

    def diverge(on_progress: Any) -> None:
        assert judging.wait(DEADLINE_S)
        failed.set()
        raise TrainingError("diverged", kind="divergence")

    with pytest.raises(TrainingError, match="diverged"):
        run_all([evaluation("judged", judge, lambda _: None), evaluation("a", diverge)], tmp_path)
    assert list(tmp_path.glob("*.json")) == []


def test_a_failed_judge_is_reported_and_finished_results_are_kept(tmp_path: Path) -> None:
    def judge(on_progress: Any) -> None:
        raise InputError([])

    evaluations = [evaluation("judged", judge, lambda _: None), evaluation("a", lambda _: None)]
    with pytest.raises(InputError):
        run_all(evaluations, tmp_path)
    reused: list[str] = []
    evaluations[0] = evaluation("judged", lambda _: None, lambda _: None)
    assert run_all(evaluations, tmp_path, on_reused=reused.extend) == ["judged", "a"]
    assert reused == ["a"]
