"""Who is held out: decided by what examples say, never shared with what is trained on."""

import pytest

from trainers.data.examples import Example, Message, pair
from trainers.data.split import split_heldout
from trainers.foundation.errors import InputError


def numbered(count: int) -> list[Example]:
    return [pair(f"data.jsonl:{i}", prompt=f"Q{i}", completion=f"A{i}") for i in range(count)]


def ids(examples: list[Example]) -> set[str]:
    return {example.id for example in examples}


def test_the_heldout_part_has_the_size_asked_for_and_shares_nothing() -> None:
    train, heldout = split_heldout(numbered(50), heldout_examples=10, seed=0)
    assert (len(train), len(heldout)) == (40, 10)
    assert ids(train) | ids(heldout) == ids(numbered(50))


def test_the_seed_alone_decides_who_is_held_out() -> None:
    first = split_heldout(numbered(50), heldout_examples=10, seed=0)
    assert split_heldout(numbered(50), heldout_examples=10, seed=0) == first
    assert split_heldout(numbered(50), heldout_examples=10, seed=1) != first
    # A literal, so that an upgrade which redraws every split does not go unseen.
    prompts = [example.prompt for example in first[1]]
    assert prompts == ["Q24", "Q28", "Q39", "Q6", "Q2", "Q10", "Q29", "Q7", "Q30", "Q42"]


def test_the_order_of_the_file_does_not_matter() -> None:
    forwards = split_heldout(numbered(50), heldout_examples=10, seed=3)
    assert split_heldout(numbered(50)[::-1], heldout_examples=10, seed=3) == forwards


def test_a_larger_heldout_part_contains_the_smaller() -> None:
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


def test_a_heldout_part_that_leaves_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        split_heldout(numbered(10), heldout_examples=10, seed=0)
    assert str(caught.value) == (
        "data.heldout_examples must be smaller than the number of examples, got 10 of 10: none is"
        " left to train on; set data.heldout_examples to 9 or less, or give more data"
    )


def test_one_example_alone_cannot_be_split() -> None:
    with pytest.raises(InputError) as caught:
        split_heldout(numbered(1), heldout_examples=1, seed=0)
    assert str(caught.value) == (
        "data.heldout_examples must be smaller than the number of examples, got 1 of 1: none is"
        " left to train on; give at least 2 examples, one to train on and one to hold out"
    )


def test_prompts_that_are_all_shared_too_widely_are_refused_with_a_number_that_helps() -> None:
    examples = [
        pair(f"data.jsonl:{i}", prompt="Q" if i < 4 else "R", completion=f"A{i}") for i in range(10)
    ]
    with pytest.raises(InputError) as caught:
        split_heldout(examples, heldout_examples=3, seed=0)
    assert str(caught.value) == (
        "data.heldout_examples is 3, but every prompt is shared by more examples than that, and"
        " those must stay together; set data.heldout_examples to 4 or more, or remove examples"
        " with the same prompt"
    )
    train, heldout = split_heldout(examples, heldout_examples=4, seed=0)
    assert (len(train), len(heldout)) == (6, 4)


def test_examples_that_all_share_one_prompt_are_refused() -> None:
    examples = [pair(f"data.jsonl:{i}", prompt="Q", completion=f"A{i}") for i in range(10)]
    with pytest.raises(InputError) as caught:
        split_heldout(examples, heldout_examples=3, seed=0)
    assert str(caught.value).endswith(
        "; give examples with other prompts: all have the same one, and what is held out must not"
        " have been trained on"
    )
