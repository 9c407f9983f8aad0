"""N-gram overlap with the training data."""

import random

import pytest

from evals.contamination.ngrams import ItemText, find_overlaps, item_text, words
from trainers.data.examples import Example, Message, pair

FOX = "the quick brown fox jumps over the lazy dog while seven wizards watch from afar"


def _training(*pairs: tuple[str, str]) -> list[Example]:
    return [
        pair(f"t:{number}", prompt=prompt, completion=completion)
        for number, (prompt, completion) in enumerate(pairs)
    ]


def _overlaps(prompt: str, completion: str, training: list[Example]) -> bool:
    (found,) = find_overlaps([ItemText(prompt=prompt, completion=completion)], training)
    return found


def test_words_ignore_letter_case_and_punctuation() -> None:
    assert words("Don't STOP -- os.path_join, ﬁne!") == [
        "don", "t", "stop", "os", "path", "join", "fine",
    ]  # fmt: skip
    assert words("日本語 text") == ["日", "本", "語", "text"]
    assert words("... !") == []
    ascii_text = "".join(map(chr, range(128)))
    # The last letter is not ASCII, which selects the other implementation.
    assert words(ascii_text) == words(f"{ascii_text} é")[:-1]


def test_thirteen_words_in_a_row_overlap_and_twelve_do_not() -> None:
    tail = " and then nothing else that is equal"
    item = words(FOX)[:13]
    training = _training(("Continue: " + " ".join(item).upper() + "!", "more"))
    assert _overlaps(" ".join(item) + tail, "x", training)
    twelve = _training(("Continue: " + " ".join(item[:12]), "more"))
    assert not _overlaps(" ".join(item) + tail, "x", twelve)


def test_an_ngram_may_span_prompt_and_completion_but_not_two_examples() -> None:
    first, second = FOX[:40], FOX[40:]
    assert _overlaps(FOX, "entirely other words", _training((first, second)))
    assert not _overlaps(FOX, "entirely other words", _training(("a", first), (second, "b")))


def test_an_item_of_8_to_12_words_overlaps_if_an_example_contains_all_of_it() -> None:
    question, answer = "which of these animals jumps over the", "dog"
    within = _training((f"Quiz. {question} {answer} or else?", "yes"))
    assert _overlaps(question, answer, within)
    assert not _overlaps(question, "cat", within)


def test_a_shorter_item_overlaps_only_if_it_or_its_prompt_equals_that_of_an_example() -> None:
    training = _training(("What is the capital of France?", "Paris."))
    assert _overlaps("what is the capital of france", "Paris", training)
    assert _overlaps("What is the capital of France?", "It is Paris", training)
    assert not _overlaps(
        "What is the capital", "of France", _training(("x", "What is the capital of France"))
    )
    assert not _overlaps("Name a city.", "Paris.", training)
    # The whole text is equal; the completion may begin elsewhere.
    assert _overlaps("What is the capital", "of France? Paris.", training)


def test_an_ngram_in_more_than_ten_examples_is_a_template_and_no_overlap() -> None:
    ten = _training(*[(f"{FOX}: number {n}", str(n)) for n in range(10)])
    eleven = _training(*[(f"{FOX}: number {n}", str(n)) for n in range(11)])
    assert _overlaps(f"{FOX}: quite another", "one", ten)
    assert not _overlaps(f"{FOX}: quite another", "one", eleven)
    constant = _training(*[("Write a haiku.", f"poem {n}") for n in range(11)])
    assert not _overlaps("Write a haiku.", "other poem", constant)
    # An item that equals a whole example overlaps, independent of the number of examples.
    assert _overlaps("Write a haiku.", "Poem 3", constant)
    assert _overlaps("Sort!", "list.sort", _training(*[("Sort!", "list.sort")] * 50))


def test_an_ngram_that_an_example_repeats_counts_once() -> None:
    assert _overlaps(FOX, "x", _training((f"{FOX} " * 20, "y")))


def test_an_item_without_words_overlaps_nothing() -> None:
    assert find_overlaps([ItemText(prompt="?", completion="!")], _training((".", "..."))) == [False]
    assert find_overlaps([], _training(("a", "b"))) == []
    assert find_overlaps([ItemText(prompt=FOX, completion="")], []) == [False]


def test_system_messages_are_ignored() -> None:
    def chat(id: str, question: str) -> Example:
        return Example(
            id=id,
            messages=(
                Message(role="system", content=FOX),
                Message(role="user", content=question),
                Message(role="assistant", content="yes"),
            ),
        )

    assert item_text(chat("a", "Sort?")) == ItemText(prompt="Sort?", completion="yes")
    assert find_overlaps([item_text(chat("a", "Sort?"))], [chat("b", "Join?")]) == [False]


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_equal_those_of_comparing_every_ngram(seed: int) -> None:
    draw = random.Random(seed)

    # A vocabulary of two words, so that texts share long n-grams by chance.
    def text(most: int) -> str:
        return " ".join(draw.choice("ab") for _ in range(draw.randint(0, most)))

    items = [ItemText(prompt=text(14), completion=text(14)) for _ in range(60)]
    training = _training(*[(text(30), text(30)) for _ in range(40)])

    def expected(item: ItemText) -> bool:
        whole = words(f"{item.prompt} {item.completion}")
        texts = [words(f"{e.prompt} {e.completion}") for e in training]
        prompts = [words(e.prompt) for e in training]
        if whole and whole in texts:
            return True
        if words(item.prompt) and 0 < prompts.count(words(item.prompt)) <= 10:
            return True
        size = min(len(whole), 13)
        if size < 8:
            return False

        def has(run: list[str], of: list[str]) -> bool:
            return any(of[start : start + size] == run for start in range(len(of) - size + 1))

        return any(
            0 < sum(has(whole[start : start + size], of) for of in texts) <= 10
            for start in range(len(whole) - size + 1)
        )

    found = find_overlaps(items, training)
    assert found == [expected(item) for item in items]
    assert 5 < sum(found) < 55
