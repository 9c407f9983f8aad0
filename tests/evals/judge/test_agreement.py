"""Agreement of a judge with people, against scikit-learn and direct counts."""

import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from evals.judge.agreement import compute_agreement, read_human_pairs, read_verdicts, validate
from trainers.foundation.errors import InputError


def record(idx: int, *labels: int, **changes: Any) -> dict[str, Any]:
    one, two, three = labels
    return {
        "idx": idx,
        "instruction": f"Do {idx}.",
        "input": "",
        "response1": "a",
        "response2": "b",
        "annotator1": one,
        "annotator2": two,
        "annotator3": three,
    } | changes


RECORDS = [
    record(0, 1, 1, 1),
    record(1, 1, 1, 2),
    record(2, 2, 2, 2, input="of this"),
    record(3, 0, 2, 2),
    record(4, 0, 0, 1),
    record(5, 0, 1, 2),  # No majority.
]
JUDGE_VERDICTS = ["1", "2", "2", "garbage", "Tie", "1"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "testset.json"
    path.write_text(json.dumps(RECORDS))
    return path


@pytest.fixture
def verdicts(tmp_path: Path) -> Path:
    path = tmp_path / "judge.json"
    path.write_text(json.dumps([{"idx": i, "gpt_result": v} for i, v in enumerate(JUDGE_VERDICTS)]))
    return path


def test_agreement_of_existing_verdicts_equals_a_direct_count(data: Path, verdicts: Path) -> None:
    pairs = read_human_pairs(data)
    found = validate(pairs, read_verdicts(verdicts, pairs), seed=0)
    assert (found.num_pairs, found.num_without_majority, found.num_unparsable) == (6, 1, 1)
    assert found.judge.accuracy == 3 / 5
    assert found.judge_unparsable_as_tie.accuracy == 3 / 5
    assert found.judge_readable is not None
    assert found.judge_readable.accuracy == 3 / 4
    majority, judge = [1, 1, 2, 2, 0], [1, 2, 2, 9, 0]
    assert found.judge.kappa == pytest.approx(cohen_kappa_score(majority, judge))
    assert found.judge_readable.kappa == pytest.approx(
        cohen_kappa_score([1, 1, 2, 0], [1, 2, 2, 0])
    )
    people = [[r[f"annotator{k}"] for r in RECORDS] for k in (1, 2, 3)]
    between = [(people[0], people[1]), (people[0], people[2]), (people[1], people[2])]
    assert found.person_person_accuracy == pytest.approx((4 + 2 + 3) / 18)
    assert found.person_person_kappa == pytest.approx(
        sum(cohen_kappa_score(one, other) for one, other in between) / 3
    )
    read = [(i, v) for i, v in enumerate([1, 2, 2, None, 0, 1]) if v is not None]
    assert found.judge_person_accuracy == pytest.approx(
        sum(people[k][i] == v for i, v in read for k in range(3)) / 15
    )
    assert found.confusion["reference"] == {
        "candidate": 0, "reference": 1, "tie": 0, "unparsable": 1,
    }  # fmt: skip


def test_kappa_of_equal_verdicts_is_one_and_of_constant_verdicts_none() -> None:
    perfect = compute_agreement([("candidate", "candidate"), ("tie", "tie")], seed=0)
    assert (perfect.accuracy, perfect.kappa) == (1, 1)
    assert compute_agreement([("tie", "tie")] * 3, seed=0).kappa is None


def test_the_interval_of_kappa_is_seeded() -> None:
    verdict_pairs: list[Any] = [
        ("candidate", "candidate"),
        ("reference", "tie"),
        ("tie", "tie"),
    ] * 20
    found = compute_agreement(verdict_pairs, seed=1)
    assert found == compute_agreement(verdict_pairs, seed=1)
    assert found.kappa_ci_low is not None
    assert found.kappa_ci_high is not None
    assert found.kappa is not None
    assert found.kappa_ci_low < found.kappa < found.kappa_ci_high


def test_verdicts_are_matched_by_idx_in_any_spelling(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    lines = [{"idx": 5 - i, "verdict": v} for i, v in enumerate([0, "tie", 1, "2", None, "yes"])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_verdicts(path, read_human_pairs(data)) == {
        "0": None,
        "1": None,
        "2": "reference",
        "3": "candidate",
        "4": "tie",
        "5": "tie",
    }


def test_a_response_without_quotes_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "testset.json"
    path.write_text(json.dumps([record(0, 1, 1, 1, response1=True)]))
    assert read_human_pairs(path)[0].pair.candidate == "True"


def test_an_invalid_label_is_reported_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "testset.json"
    path.write_text(json.dumps([RECORDS[0], record(1, 1, 3, 1)]))
    with pytest.raises(InputError) as caught:
        read_human_pairs(path)
    assert str(caught.value).startswith(f"{path}[1]: a text is missing, or a verdict is not 0")
    assert "'annotator2': 3" in str(caught.value)


def test_missing_verdicts_are_counted(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "judge.json"
    path.write_text(json.dumps([{"idx": 0, "verdict": 1}]))
    with pytest.raises(InputError, match="no verdict for 5 of 6 pairs, the first is 1"):
        read_verdicts(path, read_human_pairs(data))
