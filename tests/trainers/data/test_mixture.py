"""Several data sets are mixed: how often each example is used, and what is held out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trainers.data.mixture import mix
from trainers.data.readers import iter_examples
from trainers.data.tokenize import Split, read_split
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two data sets with the same file name and other column names; four prompts are in both."""
    monkeypatch.chdir(tmp_path)
    write("a/train.jsonl", [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(24)])
    write("b/train.jsonl", [{"ask": f"Q{i}", "say": f"B{i}"} for i in range(20, 32)])
    return tmp_path


def write(name: str, records: list[dict[str, str]]) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")


def config(a: dict[str, Any] | None = None, b: dict[str, Any] | None = None) -> DataConfig:
    columns = {"prompt": "ask", "completion": "say"}
    return DataConfig.model_validate(
        {
            "sources": [
                {"path": "a/train.jsonl", **(a or {})},
                {"path": "b/train.jsonl", "columns": columns, **(b or {})},
            ],
            "heldout_examples": 9,
        }
    )


def uses(split: Split) -> list[Counter[str]]:
    """Return how often each example of the two sources is in the training data."""
    completions = [example.completion for example in split.train]
    return [Counter(one for one in completions if one[0] == letter) for letter in "AB"]


def test_ids_name_the_source() -> None:
    ids = [example.id for example in iter_examples(config())]
    assert (ids[0], ids[23], ids[24]) == ("0/train.jsonl:1", "0/train.jsonl:24", "1/train.jsonl:1")


def test_by_default_every_example_is_used_once() -> None:
    split = read_split(config())
    a, b = uses(split)
    assert {*a.values(), *b.values()} == {1}
    assert len(split.train) + len(split.heldout) == 36
    assert len(split.heldout) in (8, 9)


def test_repeat_uses_whole_passes_and_a_random_part_of_another() -> None:
    once = uses(read_split(config()))
    a, b = uses(read_split(config({"repeat": 2.5}, {"repeat": 0.5})))
    assert sum(a.values()) == round(2.5 * len(once[0]))
    assert a.keys() == once[0].keys()
    assert set(a.values()) == {2, 3}
    assert sum(b.values()) == round(0.5 * len(once[1]))
    assert set(b.values()) == {1}


def test_held_out_examples_do_not_depend_on_repeats_and_their_prompts_stay_out() -> None:
    plain = read_split(config())
    repeated = read_split(config({"repeat": 3}, {"repeat": 2}))
    assert list(repeated.heldout) == list(plain.heldout)
    prompts = {example.prompt for example in repeated.train}
    assert not prompts & {example.prompt for example in repeated.heldout}
    assert {example.id[0] for example in plain.heldout} == {"0", "1"}


def test_proportions_are_shares_of_an_epoch_with_as_many_examples_as_the_sources() -> None:
    total = len(read_split(config()).train)
    a, b = uses(read_split(config({"proportion": 1}, {"proportion": 3})))
    assert sum(a.values()) == round(total / 4)
    assert sum(b.values()) == round(total * 3 / 4)
    assert max(a.values()) == 1  # fewer than its examples: none twice


@pytest.mark.parametrize("setting", ["repeat", "proportion"])
def test_a_source_without_training_examples_is_an_error(setting: str) -> None:
    sources_of_training_examples = [0, 0, 0]
    with pytest.raises(InputError) as caught:
        mix(sources_of_training_examples, config({setting: 2}, {setting: 3}))
    assert str(caught.value) == (
        "b/train.jsonl: all examples of data.sources[1] are held out; lower data.heldout_examples,"
        " or remove the source"
    )


def test_a_mixture_is_the_same_every_time_and_another_with_another_seed() -> None:
    mixed = config({"repeat": 0.5})
    first = [example.id for example in read_split(mixed).train]
    assert [example.id for example in read_split(mixed).train] == first
    other = mixed.model_copy(update={"seed": 1})
    assert [example.id for example in read_split(other).train] != first


def test_the_order_of_repeated_examples_is_shuffled() -> None:
    """So that data.train_examples takes a random part of the mixture."""
    train = read_split(config({"repeat": 4}, {"repeat": 4})).train
    first_half = Counter(example.source for example in train[: len(train) // 2])
    assert min(first_half.values()) > len(train) // 10


def test_a_source_that_would_not_be_used_is_an_error() -> None:
    with pytest.raises(InputError, match=r"data.sources\[1\] would use none of its \d+ training"):
        read_split(config({}, {"repeat": 0.01}))


def test_problems_of_all_sources_are_reported() -> None:
    write("a/train.jsonl", [{"prompt": "Q", "completion": ""}])
    write("b/train.jsonl", [{"ask": "Q"}])
    with pytest.raises(InputError) as caught:
        list(iter_examples(config()))
    assert [str(problem).partition(";")[0] for problem in caught.value.problems] == [
        'a/train.jsonl:1: completion must not be empty, got ""',
        "b/train.jsonl: no record has the column say of data.columns.completion",
    ]
