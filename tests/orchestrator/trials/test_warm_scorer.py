"""Retries of a scoring by kind of failure. Ray is replaced by a list of attempts."""

from typing import Any

import pytest

# Ray takes seconds to import; no cluster is started.
pytestmark = pytest.mark.slow

RETRIES = {"crash": 2, "out_of_memory": 1, "divergence": 0}


class FakeActor:
    """An actor whose scoring ends in the given way."""

    def __init__(self, end: Any) -> None:
        self.wait_until_ready = self._method("ready")
        self.score = self._method(end)

    @staticmethod
    def _method(value: Any) -> Any:
        return type("Method", (), {"remote": staticmethod(lambda *_: value)})


def run(monkeypatch: pytest.MonkeyPatch, ends: list[Any]) -> tuple[Any, int]:
    """Score a model with one end for each attempt; return its progress and the attempts made."""
    import ray

    from orchestrator.trials import warm_scorer
    from orchestrator.trials.job_channel import Job, Progress
    from orchestrator.trials.workers import WorkerSettings

    actors = iter([FakeActor(end) for end in ends])
    options = type("Options", (), {"remote": lambda self: next(actors)})

    def get(end: Any) -> Any:
        if isinstance(end, Exception):
            raise end
        return warm_scorer._Failure(*end) if end is not None else None

    monkeypatch.setattr(warm_scorer, "get_current_placement_group", lambda: None)
    monkeypatch.setattr(warm_scorer, "PlacementGroupSchedulingStrategy", lambda *_: None)
    monkeypatch.setattr(warm_scorer.Scorer, "options", lambda **_: options())
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(ray, "get", get)
    settings = WorkerSettings("root", {}, 1, 1, 0, 1, 0, RETRIES)
    scorer = warm_scorer.WarmScorer(settings)
    scorer.submit(Job("scoring", "t", "b", {}, "m"))
    progress = Progress()
    while not progress.is_finished:
        progress = scorer.wait(progress, 0)
    return progress, len(ends) - len(list(actors))


@pytest.mark.parametrize(("kind", "tries"), [("crash", 3), ("out_of_memory", 2), ("input", 1)])
def test_a_failure_is_retried_in_a_new_process_as_often_as_its_kind_allows(
    monkeypatch: pytest.MonkeyPatch, kind: str, tries: int
) -> None:
    progress, num_actors = run(monkeypatch, [("it broke", kind)] * 5)
    assert num_actors == progress.attempts == progress.num_failures == tries
    assert (progress.outcome, progress.error, progress.failure) == ("failed", "it broke", kind)


def test_kinds_of_failures_are_counted_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = [("a", "crash"), ("b", "out_of_memory"), ("c", "crash"), None]
    progress, num_actors = run(monkeypatch, ends)
    assert (progress.outcome, num_actors, progress.num_failures) == ("done", 4, 3)


def test_a_lost_node_is_retried_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import ActorDiedError

    class NodeDied(ActorDiedError):
        def __str__(self) -> str:
            return "The actor died because its node has died. Node Id: 0a1b"

    progress, num_actors = run(monkeypatch, [NodeDied()] * 20)
    assert (progress.failure, num_actors) == ("lost_node", 11)
    progress, _ = run(monkeypatch, [NodeDied()] * 10 + [None])
    assert progress.outcome == "done"
