"""The held-out split depends on the texts and shares no prompt with the training examples."""

import pytest

from trainers.data import split
from trainers.data.examples import Example, Message, pair
from trainers.foundation.errors import InputError


def numbered(count: int) -> list[Example]:
    return [pair(f"data.jsonl:{i}", prompt=f"Q{i}", completion=f"A{i}") for i in range(count)]


def split_heldout(
    examples: list[Example], *, heldout_examples: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return the (training, held-out) examples."""
    train, heldout = split.split_heldout(examples, heldout_examples=heldout_examples, seed=seed)
    return [examples[index] for index in train], [examples[index] for index in heldout]


def ids(examples: list[Example]) -> set[str]:
    return {example.id for example in examples}


def test_the_heldout_set_has_the_requested_size_and_is_disjoint() -> None:
    train, heldout = split_heldout(numbered(50), heldout_examples=10, seed=0)
    assert (len(train), len(heldout)) == (40, 10)
    assert ids(train) | ids(heldout) == ids(numbered(50))


def test_the_heldout_set_depends_only_on_the_seed() -> None:
    first = split_heldout(numbered(50), heldout_examples=10, seed=0)
    assert split_heldout(numbered(50), heldout_examples=10, seed=0) == first
    assert split_heldout(numbered(50), heldout_examples=10, seed=1) != first
    # A literal detects an upgrade that changes every split.
    prompts = [example.prompt for example in first[1]]
    assert prompts == ["Q24", "Q28", "Q39", "Q6", "Q2", "Q10", "Q29", "Q7", "Q30", "Q42"]


def test_the_order_of_texts_with_duplicates_is_that_of_earlier_releases() -> None:
    # Computed with release 0.1: trial ids and published results depend on this order.
    examples = [
        pair(f"d.jsonl:{i}", prompt=f"Q{i % 7}{' ' * (i % 2)}", completion=f"A{i % 3}")
        for i in range(1, 25)
    ]
    train, heldout = split_heldout(examples, heldout_examples=8, seed=0)
    assert [int(example.id[8:]) for example in train] == [
        5,
        3,
        22,
        24,
        8,
        21,
        14,
        4,
        7,
        10,
        1,
        19,
        15,
        17,
        12,
        18,
        11,
    ]
    assert [int(example.id[8:]) for example in heldout] == [13, 6, 20, 9, 23, 16, 2]


def test_the_order_of_the_file_does_not_matter() -> None:
    forwards = split_heldout(numbered(50), heldout_examples=10, seed=3)
    assert split_heldout(numbered(50)[::-1], heldout_examples=10, seed=3) == forwards


def test_a_larger_heldout_set_contains_the_smaller_one() -> None:
    _, small = split_heldout(numbered(50), heldout_examples=5, seed=0)
    _, large = split_heldout(numbered(50), heldout_examples=20, seed=0)
    assert ids(small) < ids(large)


def test_the_first_training_examples_are_not_the_first_of_the_file() -> None:
    train, _ = split_heldout(numbered(50), heldout_examples=10, seed=0)
    assert [example.id for example in train] != sorted(ids(train))


@pytest.mark.parametrize("seed", range(20))
def test_examples_with_one_prompt_stay_on_one_side(seed: int) -> None:
    examples = [
        pair(f"data.jsonl:{i}", prompt=f"Q{i // 3}{' ' * (i % 3)}", completion=f"A{i}")
        for i in range(60)
    ]
    train, heldout = split_heldout(examples, heldout_examples=9, seed=seed)
    assert len(heldout) == 9
    assert not {e.prompt.strip() for e in train} & {e.prompt.strip() for e in heldout}


def test_the_last_user_turn_counts_as_the_prompt_of_a_chat() -> None:
    bare = pair("data.jsonl:1", prompt="Q", completion="A")
    system = Example(
        id="data.jsonl:2", messages=(Message(role="system", content="S"), *bare.messages)
    )
    for seed in range(8):
        train, heldout = split_heldout([bare, system, *numbered(4)], heldout_examples=2, seed=seed)
        assert ({bare.id, system.id} & ids(train)) in (set(), {bare.id, system.id})
        assert len(heldout) == 2


def test_holding_out_every_example_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        split_heldout(numbered(10), heldout_examples=10, seed=0)
    assert str(caught.value) == (
        "data.heldout_examples must be smaller than the number of examples, got 10 of 10: none"
        " remains for training; set data.heldout_examples to 9 or less, or use more data"
    )


def test_one_example_cannot_be_split() -> None:
    with pytest.raises(InputError) as caught:
        split_heldout(numbered(1), heldout_examples=1, seed=0)
    assert str(caught.value) == (
        "data.heldout_examples must be smaller than the number of examples, got 1 of 1: none"
        " remains for training; use at least 2 examples, one for training and one held out"
    )


def test_error_for_shared_prompts_names_the_smallest_possible_number() -> None:
    examples = [
        pair(f"data.jsonl:{i}", prompt="Q" if i < 4 else "R", completion=f"A{i}") for i in range(10)
    ]
    with pytest.raises(InputError) as caught:
        split_heldout(examples, heldout_examples=3, seed=0)
    assert str(caught.value) == (
        "data.heldout_examples is 3, but every prompt is shared by more examples, and"
        " examples with one prompt must stay together; set data.heldout_examples to"
        " 4 or more, or remove examples with the same prompt"
    )
    train, heldout = split_heldout(examples, heldout_examples=4, seed=0)
    assert (len(train), len(heldout)) == (6, 4)


def test_examples_with_one_common_prompt_are_an_error() -> None:
    examples = [pair(f"data.jsonl:{i}", prompt="Q", completion=f"A{i}") for i in range(10)]
    with pytest.raises(InputError) as caught:
        split_heldout(examples, heldout_examples=3, seed=0)
    assert str(caught.value).endswith(
        "; add examples with other prompts: all have the same one, and a held-out prompt must not"
        " be in the training data"
    )
