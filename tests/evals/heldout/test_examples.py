"""Held-out examples: the file, the sample and the distractors."""

from pathlib import Path

import pytest

from evals.config import DistractorChoiceConfig, EvalConfig, HeldoutConfig
from evals.heldout.examples import (
    check_examples,
    choice_items,
    examples_sha256,
    load_examples,
    sample_examples,
    write_examples,
)
from trainers.data.examples import Example, Message, pair
from trainers.foundation.errors import InputError

MANY = [pair(f"m:{n}", prompt=f"question {n}", completion=f"answer {n}") for n in range(50)]


def test_written_examples_are_loaded_unchanged(tmp_path: Path) -> None:
    examples = [
        pair("a:1", prompt='line\nbreak, "quotes"', completion="line\u2028separator é"),
        Example(
            id="a:2",
            messages=(
                Message(role="system", content="Be brief."),
                Message(role="user", content="Hello"),
                Message(role="assistant", content="Hello."),
                Message(role="user", content="Bye"),
                Message(role="assistant", content="Bye."),
            ),
        ),
        Example(
            id="a:3",
            messages=pair("", prompt="Sort: 2, 1", completion="1, 2").messages,
            instruction="Sort",
            input="",
        ),
    ]
    path = tmp_path / "data" / "heldout.jsonl"
    write_examples(path, examples)
    assert load_examples(path) == examples


def test_a_line_omits_fields_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    write_examples(path, [pair("a:1", prompt="é", completion="b")])
    assert path.read_text(encoding="utf-8") == (
        '{"id": "a:1", "messages": [{"role": "user", "content": "é"},'
        ' {"role": "assistant", "content": "b"}]}\n'
    )


def test_every_invalid_line_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    good = '{"id": "a", "messages": [{"role": "assistant", "content": "x"}]}'
    path.write_text(
        "\n".join(
            [
                good,
                "{",
                '{"id": "b", "messages": [{"role": "user", "content": "x"}]}',
                '{"id": "c", "messages": [{"role": "bot", "content": "x"}]}',
                '{"id": "d", "mesages": []}',
                "",
                good,
            ]
        )
    )
    with pytest.raises(InputError) as caught:
        load_examples(path)
    problems = caught.value.problems
    assert [problem.where for problem in problems] == [f"{path}:{n}" for n in (2, 3, 4, 5, 7)]
    assert problems[1].message == "the last message must have the role assistant"
    assert "messages.0.role" in problems[2].message
    assert "mesages" in problems[3].message
    assert problems[4].message == "id 'a' is a duplicate of line 1"


def test_a_missing_and_an_empty_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read held-out examples"):
        load_examples(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="the file contains no examples"):
        load_examples(tmp_path / "empty.jsonl")
    assert load_examples(tmp_path / "empty.jsonl", may_be_empty=True) == []


def test_a_larger_sample_contains_the_smaller_one_in_the_order_of_the_file() -> None:
    ten, twenty = sample_examples(MANY, 10, seed=0), sample_examples(MANY, 20, seed=0)
    assert len(ten) == 10
    assert set(ten) < set(twenty)
    assert twenty == sorted(twenty, key=MANY.index)
    assert sample_examples(MANY, 10, seed=0) == ten
    assert sample_examples(MANY, 10, seed=1) != ten
    assert sample_examples(MANY, 99, seed=0) == MANY


def test_choices_are_the_true_completion_and_distinct_others() -> None:
    items = choice_items(MANY, DistractorChoiceConfig(examples=20, choices=4), seed=3)
    assert [item.example for item in items] == sample_examples(MANY, 20, seed=3)
    for item in items:
        assert item.choices[0] == item.example.completion
        assert len(set(item.choices)) == 4
    assert items == choice_items(MANY, DistractorChoiceConfig(examples=20, choices=4), seed=3)
    assert items != choice_items(MANY, DistractorChoiceConfig(examples=20, choices=4), seed=4)


def test_distractors_differ_from_the_true_completion_ignoring_case_and_space() -> None:
    examples = [
        pair("d:1", prompt="a", completion="New York"),
        pair("d:2", prompt="b", completion=" new  york\n"),
        pair("d:3", prompt="c", completion="Paris"),
        pair("d:4", prompt="d", completion="  "),
    ]
    items = choice_items(examples, DistractorChoiceConfig(choices=2), seed=0)
    assert [(item.example.id, item.choices[1]) for item in items] == [
        ("d:1", "Paris"),
        ("d:2", "Paris"),
        ("d:3", "New York"),
    ]


def test_another_completion_of_the_same_prompt_is_not_a_distractor() -> None:
    examples = [
        pair("s:1", prompt="Name a colour.", completion="red"),
        pair("s:2", prompt="Name a colour.", completion="blue"),
        pair("s:3", prompt="Name a town.", completion="Rome"),
        pair("s:4", prompt="Name a planet.", completion="Mars"),
    ]
    items = choice_items(examples, DistractorChoiceConfig(choices=3), seed=0)
    assert set(items[0].choices) == {"red", "Rome", "Mars"}
    assert set(items[1].choices) == {"blue", "Rome", "Mars"}


@pytest.mark.parametrize(
    ("completions", "message"),
    [
        (
            ["yes", "no", "Yes ", "no"],
            "evals.heldout_choice needs 4 distinct completions for each held-out example, got 2;"
            " set evals.heldout_choice.choices to 2 or evals.heldout_choice to null,"
            " or hold out more examples",
        ),
        (
            ["yes", "YES"],
            "evals.heldout_choice needs 4 distinct completions for each held-out example, got 1;"
            " set evals.heldout_choice to null, or hold out more examples",
        ),
        (
            [" ", ""],
            "evals.heldout_choice needs 4 distinct completions for each held-out example, got 0;"
            " set evals.heldout_choice to null, or hold out more examples",
        ),
    ],
)
def test_too_few_different_completions_are_an_error(completions: list[str], message: str) -> None:
    examples = [pair(f"y:{n}", prompt=str(n), completion=c) for n, c in enumerate(completions)]
    with pytest.raises(InputError) as caught:
        check_examples(examples, EvalConfig())
    assert str(caught.value) == message
    check_examples(examples, EvalConfig(heldout_choice=None))


def test_no_examples_are_an_error() -> None:
    with pytest.raises(InputError, match="no held-out examples"):
        check_examples([], EvalConfig(heldout=HeldoutConfig()))


def test_the_digest_changes_with_any_difference() -> None:
    one = [pair("a", prompt="b", completion="c"), pair("d", prompt="e", completion="f")]
    assert examples_sha256(one) == examples_sha256(list(one))
    assert examples_sha256(one) != examples_sha256(one[::-1])
    assert examples_sha256(one) != examples_sha256([one[0], pair("d", prompt="e", completion="g")])
    assert len(examples_sha256(one)) == 64
