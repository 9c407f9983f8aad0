from pathlib import Path

from evals.results.response_log import Answers, request_keys


def test_answers_are_found_again_and_a_torn_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    answers = Answers(path, {"seed": 0})
    answers.add("k-1", [-1.5, True])
    answers.add("k-2", "text\nwith lines")
    with path.open("a") as file:
        file.write('["k-3", "to')
    again = Answers(path, {"seed": 0})
    assert len(again) == 2
    assert again.get("k-1") == [-1.5, True]
    assert again.get("k-2") == "text\nwith lines"
    assert again.get("k-3") is None
    again.add("k-3", "whole")
    assert Answers(path, {"seed": 0}).get("k-3") == "whole"


def test_answers_of_other_settings_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Answers(path, {"seed": 0}).add("k-1", 1.0)
    assert len(Answers(path, {"seed": 1})) == 0
    assert len(Answers(path, {"seed": 0})) == 0


def test_answers_can_be_kept_in_memory_alone() -> None:
    answers = Answers(None, {})
    answers.add("k-1", 1.0)
    assert answers.get("k-1") == 1.0
    answers.discard()


def test_requests_have_keys_of_their_own_even_where_they_are_alike() -> None:
    keys = request_keys("loglikelihood", [("a", "b"), ("a", "c"), ("a", "b")])
    assert len(set(keys)) == 3
    assert keys[0].removesuffix("-1") == keys[2].removesuffix("-2")
    assert request_keys("loglikelihood", [("a", "b")]) == keys[:1]
    assert request_keys("generate_until", [("a", "b")]) != keys[:1]
