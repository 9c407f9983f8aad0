"""Tokenised records: which tokens are the completion, their weights, and invalid records."""

import json
from pathlib import Path
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.heldout.examples import check_examples, load_examples, write_examples
from tests.trainers.data.test_roles import letters
from tests.trainers.tiny_tokenizer import tiny_tokenizer
from trainers.data.examples import Example, pair
from trainers.data.readers import read_examples
from trainers.data.split import split_heldout
from trainers.data.template import Template
from trainers.data.tokenize import encode_examples
from trainers.data.training_data import check_token_ids
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

IDS = [5, 6, 7, 8]


def read(folder: Path, *records: dict[str, Any], **settings: Any) -> list[Example]:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return read_examples(str(path), **settings)


def problems_of(folder: Path, record: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(folder, record)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("record", "ids", "roles", "weights"),
    [
        ({"labels": [-100, -100, 7, 8]}, IDS, "UUCC", None),
        ({"labels": [-100, 6, -100, 8]}, IDS, "UCUC", None),
        ({"labels": [-100, 6, 7, -100]}, IDS, "UCCU", None),
        ({"labels": [5, 6, 7, 8]}, IDS, "CCCC", None),
        ({"loss_mask": [0, 0, 1, 1]}, IDS, "UUCC", None),
        ({"completion_mask": [False, False, True, True]}, IDS, "UUCC", None),
        ({"assistant_masks": [0, 1, 1, 0]}, IDS, "UCCU", None),
        # Without labels, weight 0 is the prompt; PLW does not apply, because it has a weight.
        ({"weights": [0, 0, 0.5, 2]}, IDS, "UUCC", [0, 0, 0.5, 2]),
        (
            {"labels": [-100, -100, 7, 8], "loss_weights": [1, 0.5, 1, 0]},
            IDS,
            "UUCC",
            [1, 0.5, 1, 0],
        ),
        ({"labels": [-100, -100, 7, 8], "attention_mask": [1, 1, 1, 1]}, IDS, "UUCC", None),
        # Padding on either side is removed.
        ({"labels": [-100, 6, 7, -100], "attention_mask": [1, 1, 1, 0]}, [5, 6, 7], "UCC", None),
        (
            {"loss_weights": [0, 0.1, 1, 1], "attention_mask": [0, 1, 1, 1]},
            [6, 7, 8],
            "CCC",
            [0.1, 1, 1],
        ),
        ({"labels": "[-100, -100, 7, 8]"}, IDS, "UUCC", None),
        ({"labels": [-100, -100, 7, 8], "length": 4, "source": "x"}, IDS, "UUCC", None),
        ({"labels": [-100, -100, 7, 8], "position_ids": [0, 1, 2, 3]}, IDS, "UUCC", None),
        (
            {"input_ids": [5, 6, 0, 0], "loss_weights": [0, 1, 0, 0]},
            [5, 6, 0, 0],
            "UCUU",
            [0, 1, 0, 0],
        ),
        (
            {
                "labels": [-100, 6, -100, -100],
                "attention_mask": [1, 1, 1, 0],
                "position_ids": [0, 1, 2, 1],
            },
            [5, 6, 7],
            "UCU",
            None,
        ),
    ],
)
@pytest.mark.parametrize("template", ["plain", "alpaca"])
def test_tokens_are_used_unchanged_with_every_template(
    tmp_path: Path,
    template: str,
    record: dict[str, Any],
    ids: list[int],
    roles: str,
    weights: list[float] | None,
) -> None:
    [example] = read(tmp_path, {"input_ids": IDS, **record})
    encoded = Template(template, tiny_tokenizer()).encode(example, 512)
    assert (encoded.input_ids, letters(encoded), encoded.weights) == (ids, roles, weights)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (
            {},
            "a record with input_ids must say which tokens belong to the completion; add labels"
            " (-100 for the prompt), loss_mask (0 or 1) or loss_weights",
        ),
        ({"labels": [-100, 7]}, "labels has 2 values, but input_ids has 4"),
        (
            {"labels": [-100, 7, 8, 9]},
            "labels[1] must be -100 or the id at the same position, got 7 for 6; do not shift"
            " labels; the loss does it",
        ),
        (
            {"labels": [-100] * 4},
            "no token after the first belongs to the completion; remove the record, or add empty"
            " to data.drop",
        ),
        ({"labels": [-1, 6, 7, 8]}, "labels must be a list of token ids and -100, got -1"),
        ({"loss_mask": [0, 0, 0.5, 1]}, "loss_mask must be a list of 0 and 1, got 0.5"),
        (
            {"weights": [0, -1, 1, 1]},
            "weights must be a list of weights, 0 or a number from 1e-12 to 1e+12, got -1",
        ),
        (
            {"labels": IDS, "loss_mask": [1] * 4},
            "the record has labels and loss_mask; list loss_mask in data.ignore to train without"
            " it",
        ),
        (
            {"labels": IDS, "attention_mask": [1, 0, 1, 1]},
            "attention_mask must be 1 except for padding at the ends",
        ),
        (
            {"input_ids": []},
            "input_ids must not be empty; remove the record, or add empty to data.drop",
        ),
        (
            {"input_ids": [5, -2, 7, 8], "labels": [5, -100, 7, 8]},
            "input_ids must be a list of token ids, integers from 0 to 2147483647, got -2",
        ),
        (
            {"input_ids": [5, 6, 7, 2**31], "labels": [5, 6, 7, 2**31]},
            "input_ids must be a list of token ids, integers from 0 to 2147483647, got 2147483648",
        ),
        (
            {"labels": IDS, "position_ids": [0, 1, 0, 1]},
            "position_ids must count from 0: a record is one example; write a record for each"
            " example, or list position_ids in data.ignore",
        ),
        (
            {"labels": IDS, "seq_lengths": [2, 2]},
            "the field seq_lengths is not supported; list seq_lengths in data.ignore to train"
            " without it",
        ),
        (
            {"labels": IDS, "pixel_values": [0.5]},
            "the field pixel_values is not supported; list pixel_values in data.ignore to train"
            " without it",
        ),
        (
            {"input_ids": [5, 6, 0, 0], "labels": [-100, 6, -100, -100]},
            "the last 2 tokens are all 0 and not the completion, which is how padding looks; remove"
            " it, or mark it with 0 in attention_mask",
        ),
        (
            {"labels": IDS, "images": ["a.png"]},
            "the field images is not supported; list images in data.ignore to train without it",
        ),
    ],
)
def test_problems_of_tokenised_records_have_line_and_fix(
    tmp_path: Path, record: dict[str, Any], problem: str
) -> None:
    assert problems_of(tmp_path, {"input_ids": IDS, **record}) == [f"data.jsonl:1: {problem}"]


def test_a_record_may_have_a_weight(tmp_path: Path) -> None:
    record = {"input_ids": IDS, "labels": IDS}
    examples = read(tmp_path, record, {**record, "weight": 0.5}, {**record, "weight": 0})
    assert [(one.id, one.sample_weight) for one in examples] == [
        ("data.jsonl:1", 1),
        ("data.jsonl:2", 0.5),
    ]


def test_records_without_a_completion_can_be_dropped(tmp_path: Path) -> None:
    records = [
        {"input_ids": IDS, "labels": [-100] * 4},
        {"input_ids": [], "labels": []},
        {"input_ids": IDS, "labels": IDS},
    ]
    assert [one.id for one in read(tmp_path, *records, drop=("empty",))] == ["data.jsonl:3"]


def test_ignored_tokens_leave_the_texts(tmp_path: Path) -> None:
    record = {"prompt": "Hi", "completion": "ok", "input_ids": IDS, "labels": IDS}
    [example] = read(tmp_path, record, ignore=("input_ids", "labels"))
    assert (example.tokens, example.completion) == (None, "ok")


def test_texts_and_tokens_may_be_mixed(tmp_path: Path) -> None:
    examples = read(
        tmp_path,
        {"prompt": "Hi", "completion": "ok"},
        {"input_ids": IDS, "labels": [-100, -100, 7, 8]},
        {"prompt": "a", "completion": "b"},
    )
    encoded = [one.encoded() for one in Template("plain", tiny_tokenizer()).tokenize(examples)]
    assert [letters(one) for one in encoded] == ["UUTTCCC", "UUCC", "UTTCC"]


def test_long_examples_keep_the_first_token_and_the_answer(tmp_path: Path) -> None:
    record = {"input_ids": [1, 2, 3, 4, 5], "loss_weights": [0, 0, 0, 0.5, 1]}
    template = Template("plain", tiny_tokenizer())
    [example] = read(tmp_path, record)
    [whole] = template.tokenize([example])
    truncated = template.truncate(example, whole, 4, cut_completion=False)
    assert truncated is not None
    cut = truncated.tokens
    assert (cut.input_ids, letters(cut), cut.weights) == ([1, 3, 4, 5], "UUCC", [0, 0, 0.5, 1])
    assert template.truncate(example, whole, 3, cut_completion=False) is None


def test_a_prompt_is_not_both_held_out_and_trained_on(tmp_path: Path) -> None:
    records = [
        {"input_ids": [prompt, 1, answer], "labels": [-100, -100, answer]}
        for prompt in range(10)
        for answer in (20, 21)
    ]
    indices = split_heldout(read(tmp_path, *records), heldout_examples=6, seed=0)
    sides = [{records[index]["input_ids"][0] for index in side} for side in indices]
    assert [len(side) for side in sides] == [7, 3]
    assert not sides[0] & sides[1]


def test_held_out_tokens_survive_their_file(tmp_path: Path) -> None:
    examples = [*read(tmp_path, {"input_ids": IDS, "weights": [0, 0, 0.5, 1]}),
                pair("b", prompt="Q", completion="A")]  # fmt: skip
    write_examples(tmp_path / "heldout.jsonl", examples)
    assert load_examples(tmp_path / "heldout.jsonl") == examples


def test_measures_of_texts_are_an_error_before_training(tmp_path: Path) -> None:
    examples = read(tmp_path, {"input_ids": IDS, "labels": IDS})
    with pytest.raises(InputError) as caught:
        check_examples(examples, EvalConfig())
    assert str(caught.value) == (
        "data.jsonl:1: evals.heldout_choice, evals.heldout_exact_match, evals.heldout_chrf (null"
        " turns a measure off) need texts, but the record is tokenised (input_ids)"
    )
    off = dict.fromkeys(("heldout_choice", "heldout_exact_match", "heldout_chrf"))
    check_examples(examples, EvalConfig.model_validate(off))


def test_columns_may_have_names_of_the_user(tmp_path: Path) -> None:
    record = {"tokens": IDS, "targets": [-100, -100, 7, 8]}
    [example] = read(tmp_path, record, columns={"input_ids": "tokens", "labels": "targets"})
    assert example.tokens is not None
    assert example.tokens.is_completion == (False, False, True, True)


def test_an_id_that_the_tokenizer_does_not_have_is_an_error(tmp_path: Path) -> None:
    [example] = read(tmp_path, {"input_ids": [5, 99999], "labels": [-100, 99999]})
    encoded = encode_examples([example], DataConfig(path="d", template="plain"), tiny_tokenizer())
    with pytest.raises(InputError) as raised:
        check_token_ids(encoded, [], 258, tiny_tokenizer())
    assert str(raised.value) == (
        "the data contains the token id 99999, which the tokenizer does not have, but the model"
        " only has embeddings for ids below 258; create input_ids with the tokenizer of this model"
    )
