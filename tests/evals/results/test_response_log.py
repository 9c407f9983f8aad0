"""The response log and the keys of requests."""

from pathlib import Path

from evals.results.response_log import ResponseLog, request_keys


def test_logged_responses_are_read_again_without_an_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = ResponseLog(path, {"seed": 0})
    log.add("k-1", [-1.5, True])
    log.add("k-2", "text\nwith lines")
    with path.open("a") as file:
        file.write('["k-3", "to')
    again = ResponseLog(path, {"seed": 0})
    assert len(again) == 2
    assert again.get("k-1") == [-1.5, True]
    assert again.get("k-2") == "text\nwith lines"
    assert again.get("k-3") is None
    again.add("k-3", "whole")
    assert ResponseLog(path, {"seed": 0}).get("k-3") == "whole"


def test_responses_of_other_settings_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    ResponseLog(path, {"seed": 0}).add("k-1", 1.0)
    assert len(ResponseLog(path, {"seed": 1})) == 0
    assert len(ResponseLog(path, {"seed": 0})) == 0


def test_responses_can_be_kept_in_memory_only() -> None:
    log = ResponseLog(None, {})
    log.add("k-1", 1.0)
    assert log.get("k-1") == 1.0
    log.discard()


def test_equal_requests_have_different_keys() -> None:
    keys = request_keys("loglikelihood", [("a", "b"), ("a", "c"), ("a", "b")])
    assert len(set(keys)) == 3
    assert keys[0].removesuffix("-1") == keys[2].removesuffix("-2")
    assert request_keys("loglikelihood", [("a", "b")]) == keys[:1]
    assert request_keys("generate_until", [("a", "b")]) != keys[:1]
