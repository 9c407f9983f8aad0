"""The examples of a fine-tune, read, split and tokenised."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from trainers.config import DataConfig
from trainers.data.examples import Example
from trainers.data.readers import read_examples
from trainers.data.roles import Encoded, Template, WholeExample
from trainers.data.split import split_heldout
from trainers.data.token_cache import cached, token_key
from trainers.data.tokenized import EncodedExamples, LengthCounts
from trainers.foundation.errors import InputError, Problem

log = logging.getLogger(__name__)

# Examples tokenised at once: enough for the tokenizer's threads, few enough to hold as lists.
_CHUNK = 1000

# Bounds the cost of a measurement to the forward passes of half a usual global batch of 128. The
# examples stand in the order that data.seed has drawn, so the first ones are a random sample.
MAX_HELDOUT_EXAMPLES = 64


@dataclass(frozen=True)
class Split:
    """What is trained on and what is kept for scoring."""

    train: list[Example]
    heldout: list[Example]


def read_split(config: DataConfig) -> Split:
    """The training and held-out examples, the same in every trial that shares `config`.

    Raises:
        InputError: the data cannot be read or is too small for the split.
    """
    examples = read_examples(config.path, split=config.split)
    train, heldout = split_heldout(
        examples, heldout_examples=config.heldout_examples, seed=config.seed
    )
    return Split(train[: config.train_examples], heldout)


def encode_all(
    examples: Sequence[Example],
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_first: bool = True,
) -> EncodedExamples:
    """The examples as tokens and roles, none longer than `config.max_length`.

    They are tokenised once and then read from the cache by all ranks and trials. One process of
    a run, with `is_first`, logs how many were too long.

    Raises:
        InputError: the template cannot show an example, examples are too long and may not be,
            none is left, or the cache folder that was asked for cannot be written.
    """
    template = Template(config.template, tokenizer, config.completion_turns)
    encoded = cached(
        token_key(examples, template, config),
        lambda: _encode(examples, config, template),
        is_first=is_first,
    )
    if is_first:
        log.info("%s", encoded.counts.sentence(config.max_length))
    return encoded


def encode_heldout(
    heldout: Sequence[Example], config: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Encoded]:
    """The held-out examples to measure on, encoded as they are for the scores of a model.

    So neither what is done to long training examples nor which of their turns count matters.
    """
    as_scored = config.model_copy(update={"too_long": "truncate", "completion_turns": "last"})
    # The training examples have been logged; these are not worth a line of their own.
    return list(encode_all(heldout[:MAX_HELDOUT_EXAMPLES], as_scored, tokenizer, is_first=False))


def _encode(examples: Sequence[Example], config: DataConfig, template: Template) -> EncodedExamples:
    kept: list[Encoded] = []
    problems: list[Problem] = []
    num_cut_completions = num_dropped = num_dropped_tokens = 0
    for start in range(0, len(examples), _CHUNK):
        for whole in template.tokenize(examples[start : start + _CHUNK]):
            if whole.num_tokens <= config.max_length or config.too_long == "truncate":
                num_cut_completions += len(whole.completion_ids) >= config.max_length
                kept.append(_compact(whole.cut_to(config.max_length)))
            elif config.too_long == "drop":
                num_dropped += 1
                num_dropped_tokens += whole.num_tokens
            else:
                problems.append(_too_long(whole, config.max_length))
    if problems:
        raise InputError(problems)
    if not kept:
        raise InputError(_nothing_left(config, num_dropped))
    return EncodedExamples.of(
        kept,
        LengthCounts(
            num_examples=len(kept),
            num_truncated_examples=sum(item.num_truncated_tokens > 0 for item in kept),
            num_truncated_tokens=sum(item.num_truncated_tokens for item in kept),
            num_cut_completions=num_cut_completions,
            num_dropped_examples=num_dropped,
            num_dropped_tokens=num_dropped_tokens,
        ),
    )


def _compact(encoded: Encoded) -> Encoded:
    # Lists of all examples would take ten times the memory.
    return replace(
        encoded,
        input_ids=np.array(encoded.input_ids, dtype=np.int32),
        roles=np.array(encoded.roles, dtype=np.int8),
    )


def _too_long(whole: WholeExample, max_length: int) -> Problem:
    return Problem(
        message=(
            f"the example has {whole.num_tokens} tokens, more than data.max_length {max_length}"
        ),
        where=whole.id,
        fix="raise data.max_length, shorten it, or set data.too_long to truncate or drop",
    )


def _nothing_left(config: DataConfig, num_dropped: int) -> Problem:
    if not num_dropped:
        return Problem(message="there is no training example", where=config.path)
    return Problem(
        message=(
            f"all {num_dropped} examples have more tokens than data.max_length"
            f" {config.max_length}, and data.too_long is drop"
        ),
        where=config.path,
        fix="raise data.max_length, or set data.too_long to truncate",
    )
