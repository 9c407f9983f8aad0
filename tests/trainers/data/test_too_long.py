"""Handling of examples that are longer than data.max_length."""

import logging
from typing import Any

import pytest

from tests.trainers.data.test_roles import letters
from tests.trainers.tiny_tokenizer import tiny_tokenizer
from trainers.data.encoding_counts import EncodingCounts
from trainers.data.examples import pair
from trainers.data.tokenize import encode_examples
from trainers.data.tokenized import EncodedExamples
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

# With the plain template and a token for each character: 7, 11 and 14 tokens.
EXAMPLES = [
    pair("chats.jsonl:1", prompt="Hi", completion="ok"),
    pair("chats.jsonl:2", prompt="Hi you", completion="ok"),
    pair("chats.jsonl:5", prompt="Hi", completion="123456789"),
]


def encoded(max_length: int, **settings: Any) -> EncodedExamples:
    config = DataConfig(path="chats.jsonl", template="plain", max_length=max_length, **settings)
    return encode_examples(EXAMPLES, config, tiny_tokenizer())


def test_prompts_are_cut_and_examples_that_would_lose_their_end_are_dropped() -> None:
    examples = encoded(9)
    assert [letters(example) for example in examples] == ["UUTTCCC", "UUUUTTCCC"]
    assert [example.num_truncated_tokens for example in examples] == [0, 2]
    assert examples.counts == EncodingCounts(
        num_examples=2,
        num_truncated_examples=1,
        num_truncated_tokens=2,
        num_cut_prompts=1,
        num_dropped_completions=1,
        num_dropped_tokens=14,
    )


def test_completions_lose_their_end_if_the_settings_say_so() -> None:
    examples = encoded(9, too_long_completion="truncate")
    # The last prompt keeps its two tokens of text, and the completion loses as many as it must.
    assert [letters(e) for e in examples] == ["UUTTCCC", "UUUUTTCCC", "UUTTCCCCC"]
    assert examples.counts == EncodingCounts(
        num_examples=3,
        num_truncated_examples=2,
        num_truncated_tokens=7,
        num_cut_prompts=1,
        num_cut_completions=1,
    )


def test_a_completion_that_fits_with_one_token_of_the_prompts_text_keeps_its_end() -> None:
    examples = encoded(13, too_long_completion="truncate")
    assert letters(examples[2]) == "UTT" + "C" * 10
    assert examples.counts.num_cut_completions == 0
    assert encoded(12, too_long_completion="truncate").counts.num_cut_completions == 1


def test_drop_removes_long_examples() -> None:
    examples = encoded(11, too_long="drop")
    assert [example.id for example in examples] == ["chats.jsonl:1", "chats.jsonl:2"]
    assert examples.counts == EncodingCounts(
        num_examples=2, num_dropped_examples=1, num_dropped_tokens=14
    )


def test_dropping_all_examples_is_rejected() -> None:
    config = DataConfig(path="chats.jsonl", template="plain", max_length=8, too_long="drop")
    with pytest.raises(InputError) as caught:
        encode_examples(EXAMPLES[1:], config, tiny_tokenizer())
    assert str(caught.value) == (
        "chats.jsonl: every example has more tokens than data.max_length 8, and data.too_long is"
        " drop; raise data.max_length, or set data.too_long to truncate"
    )


def test_error_names_every_long_example() -> None:
    with pytest.raises(InputError) as caught:
        encoded(9, too_long="error")
    fix = "raise data.max_length, shorten the example, or set data.too_long to truncate or drop"
    assert str(caught.value).split("\n") == [
        f"chats.jsonl:2: the example has 11 tokens, more than data.max_length 9; {fix}",
        f"chats.jsonl:5: the example has 14 tokens, more than data.max_length 9; {fix}",
    ]


def test_error_names_every_completion_that_would_lose_its_end() -> None:
    with pytest.raises(InputError) as caught:
        encoded(9, too_long_completion="error")
    assert str(caught.value) == (
        "chats.jsonl:5: the example has 14 tokens and does not fit data.max_length 9: the"
        " completion, 10 tokens, would lose its end; raise data.max_length, shorten the example, or"
        " set data.too_long_completion to drop or truncate"
    )


@pytest.mark.parametrize("too_long_completion", ["drop", "truncate"])
def test_data_without_any_example_that_fits_is_rejected(too_long_completion: str) -> None:
    config = DataConfig(
        path="chats.jsonl",
        template="alpaca",
        max_length=16,
        too_long_completion=too_long_completion,
    )
    with pytest.raises(InputError) as caught:
        encode_examples(EXAMPLES, config, tiny_tokenizer())
    assert str(caught.value) == (
        "chats.jsonl: no example fits data.max_length 16: template and completion alone have more"
        " tokens; raise data.max_length"
    )


def test_error_accepts_examples_that_fit() -> None:
    assert encoded(14, too_long="error").counts == EncodingCounts(num_examples=3)


@pytest.mark.parametrize(
    ("max_length", "too_long", "lines"),
    [
        (14, "truncate", ["3 examples, none longer than 14 tokens"]),
        (
            13,
            "truncate",
            ["3 examples", "truncated to 13 tokens: 1 example (1 token removed, 1 prompt cut)"],
        ),
        (
            9,
            "truncate",
            [
                "2 examples",
                "truncated to 9 tokens: 1 example (2 tokens removed, 1 prompt cut)",
                "dropped: 1 example whose completion does not end within 9 tokens (14 tokens)",
            ],
        ),
        (11, "drop", ["2 examples", "dropped: 1 example longer than 11 tokens (14 tokens)"]),
    ],
)
def test_the_main_rank_logs_the_counts(
    max_length: int, too_long: str, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = DataConfig(
        path="chats.jsonl", template="plain", max_length=max_length, too_long=too_long
    )
    with caplog.at_level(logging.INFO, logger="trainers"):
        encode_examples(EXAMPLES, config, tiny_tokenizer(), is_main=False)
        encode_examples(EXAMPLES, config, tiny_tokenizer(), is_main=True)
    assert caplog.messages == lines
