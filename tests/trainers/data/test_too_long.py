"""What becomes of examples that are longer than data.max_length."""

import logging
from typing import Any

import pytest

from tests.trainers.data.test_roles import letters
from tests.trainers.tiny_tokenizer import tiny_tokenizer
from trainers.config import DataConfig
from trainers.data.examples import pair
from trainers.data.tokenize import encode_all
from trainers.data.tokenized import EncodedExamples, LengthCounts
from trainers.foundation.errors import InputError

# With the plain template and a token for each character: 7, 11 and 14 tokens.
EXAMPLES = [
    pair("chats.jsonl:1", prompt="Hi", completion="ok"),
    pair("chats.jsonl:2", prompt="Hi you", completion="ok"),
    pair("chats.jsonl:5", prompt="Hi", completion="123456789"),
]


def encoded(max_length: int, **settings: Any) -> EncodedExamples:
    config = DataConfig(path="chats.jsonl", template="plain", max_length=max_length, **settings)
    return encode_all(EXAMPLES, config, tiny_tokenizer())


def test_truncate_keeps_every_example() -> None:
    examples = encoded(9)
    assert [letters(example) for example in examples] == ["UUTTCCC", "UUUUTTCCC", "TCCCCCCCC"]
    assert [example.num_truncated_tokens for example in examples] == [0, 2, 5]
    assert examples.counts == LengthCounts(
        num_examples=3, num_truncated_examples=2, num_truncated_tokens=7, num_cut_completions=1
    )


def test_a_completion_that_fits_beside_one_prompt_token_keeps_its_end() -> None:
    examples = encoded(11)
    assert letters(examples[2]) == "T" + "C" * 10
    assert examples.counts.num_cut_completions == 0
    assert encoded(10).counts.num_cut_completions == 1


def test_drop_leaves_long_examples_out() -> None:
    examples = encoded(11, too_long="drop")
    assert [example.id for example in examples] == ["chats.jsonl:1", "chats.jsonl:2"]
    assert examples.counts == LengthCounts(
        num_examples=2, num_dropped_examples=1, num_dropped_tokens=14
    )


def test_dropping_all_of_them_is_refused() -> None:
    config = DataConfig(path="chats.jsonl", template="plain", max_length=8, too_long="drop")
    with pytest.raises(InputError) as caught:
        encode_all(EXAMPLES[1:], config, tiny_tokenizer())
    assert str(caught.value) == (
        "chats.jsonl: all 2 examples have more tokens than data.max_length 8, and data.too_long is"
        " drop; raise data.max_length, or set data.too_long to truncate"
    )


def test_error_names_every_long_example() -> None:
    with pytest.raises(InputError) as caught:
        encoded(9, too_long="error")
    fix = "raise data.max_length, shorten it, or set data.too_long to truncate or drop"
    assert str(caught.value).split("\n") == [
        f"chats.jsonl:2: the example has 11 tokens, more than data.max_length 9; {fix}",
        f"chats.jsonl:5: the example has 14 tokens, more than data.max_length 9; {fix}",
    ]


def test_error_lets_through_what_fits() -> None:
    assert encoded(14, too_long="error").counts == LengthCounts(num_examples=3)


@pytest.mark.parametrize(
    ("max_length", "too_long", "line"),
    [
        (14, "truncate", "3 examples, none above 14 tokens"),
        (11, "truncate", "3 examples, 1 cut to 11 tokens, which lost 3"),
        (
            9,
            "truncate",
            "3 examples, 2 cut to 9 tokens, which lost 7, 1 of them without the end of their"
            " completion and its end-of-sequence token",
        ),
        (11, "drop", "3 examples, 1 dropped with 14 tokens for being longer than 11"),
    ],
)
def test_the_first_rank_logs_the_counts(
    max_length: int, too_long: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = DataConfig(
        path="chats.jsonl", template="plain", max_length=max_length, too_long=too_long
    )
    with caplog.at_level(logging.INFO, logger="trainers"):
        encode_all(EXAMPLES, config, tiny_tokenizer(), is_first=False)
        encode_all(EXAMPLES, config, tiny_tokenizer(), is_first=True)
    assert caplog.messages == [line]
