"""Read, split and tokenise the examples of a fine-tune."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from trainers.data.encoding_counts import EncodingCounts
from trainers.data.example_store import StoredExamples, open_examples
from trainers.data.examples import Example
from trainers.data.reading_counts import ReadingCounts
from trainers.data.roles import EncodedExample, UntruncatedExample
from trainers.data.split_cache import load_or_split, split_examples
from trainers.data.template import Template
from trainers.data.token_cache import cache_key, load_or_encode
from trainers.data.tokenized import EncodedBatch, EncodedExamples
from trainers.data.truncation import TruncatedExample
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, Problem

log = logging.getLogger(__name__)

# Number of examples per tokenizer call: enough for the tokenizer's threads, and few enough to keep
# as Python lists.
_CHUNK = 1000

# Number of examples in which those that a template cannot render are counted: some seconds.
_MAX_COUNTED = 10_000

# Limits the cost of one measurement to the forward passes of half a global batch of 128. The
# examples are shuffled by data.seed, so the first ones are a random sample.
MAX_HELDOUT_EXAMPLES = 64


@dataclass(frozen=True)
class Split:
    """Training examples and held-out examples; those of files are decoded when they are used.

    `reading` counts what was left out of all their records.
    """

    train: Sequence[Example]
    heldout: Sequence[Example]
    reading: ReadingCounts


def read_split(config: DataConfig, *, is_main: bool = True) -> Split:
    """Return the training and held-out examples, the same in every trial with `config`.

    Args:
        is_main: log warnings.

    Raises:
        InputError: the data cannot be read, or is too small for the split.
    """
    reading = ReadingCounts()
    examples = open_examples(config, reading, is_main=is_main)
    if isinstance(examples, StoredExamples):
        train, heldout = load_or_split(examples, config, is_main=is_main)
        return Split(
            examples.select(train)[: config.train_examples], examples.select(heldout), reading
        )
    train, heldout = split_examples(examples, config)
    return Split(
        [examples[index] for index in train[: config.train_examples]],
        [examples[index] for index in heldout],
        reading,
    )


def encode_examples(
    examples: Sequence[Example],
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_main: bool = True,
) -> EncodedExamples:
    """Return the tokens and roles of the examples, none longer than `config.max_length`.

    The examples are tokenised once. All ranks and trials then read them from the cache. The process
    with `is_main` logs how many were too long.

    Raises:
        InputError: the template cannot render an example; an example is too long and data.too_long
            is error; no example remains; or PLW_CACHE_DIR is not writable.
    """
    template = Template.for_data(config, tokenizer)
    encoded = load_or_encode(
        cache_key(examples, template, config),
        lambda: _encode(examples, config, template),
        is_main=is_main,
    )
    if is_main and config.completion_turns == "each":
        log.info("%d chats, with an example for each assistant turn", len(examples))
    if is_main:
        for line in encoded.counts.lines(config.max_length):
            log.info("%s", line)
    return encoded


def as_trained(examples: Iterable[Example], config: DataConfig) -> list[Example]:
    """Return the examples of a data set, or those of each turn if `completion_turns` is each."""
    if config.completion_turns != "each":
        return list(examples)
    return [turn for example in examples for turn in example.split_turns()]


def encode_heldout(
    heldout: Sequence[Example], config: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> list[EncodedExample]:
    """Return the held-out examples for the loss during training, encoded as for scoring.

    Options for training examples are ignored: data.too_long, data.completion_turns, and the
    selection of assistant turns in the data.
    """
    template = Template(
        config.template,
        tokenizer,
        args=config.template_args,
        truncation_side=config.truncation_side,
    )
    return [
        template.encode(example.with_last_turn_as_completion(), config.max_length)
        for example in heldout[:MAX_HELDOUT_EXAMPLES]
    ]


def _encode(
    examples: Sequence[Example], config: DataConfig, template: Template
) -> Iterator[EncodedBatch]:
    """Yield the encoded examples in batches.

    Raises:
        InputError: see `encode_examples`; raised at the end, with all problems.
    """
    problems: list[Problem] = []
    num_encoded = 0
    outcome, dropped = config.too_long, "num_dropped_examples"
    if outcome == "truncate":  # Only examples that cannot be truncated are excluded.
        outcome, dropped = config.too_long_completion, "num_dropped_completions"
    for start in range(0, len(examples), _CHUNK):
        encoded: list[EncodedExample] = []
        counts: Counter[str] = Counter()
        chunk = as_trained(examples[start : start + _CHUNK], config)
        try:
            tokenized = template.tokenize(chunk)
        except InputError as error:
            raise _first_misfit(examples, config, template) or error from None
        for example, whole in zip(chunk, tokenized, strict=True):
            truncated = _truncate(example, whole, config, template)
            if truncated is not None:
                encoded.append(truncated.tokens)
                counts.update(_counts(example, whole, truncated))
            elif outcome == "error":
                problems.append(_too_long_problem(whole, config))
            else:
                counts.update({dropped: 1, "num_dropped_tokens": whole.num_tokens})
        num_encoded += len(encoded)
        yield EncodedBatch.of(encoded, EncodingCounts(num_examples=len(encoded), **counts))
    if problems:
        raise InputError(problems)
    if not num_encoded:
        raise InputError(_no_examples_problem(config, len(examples)))


def _first_misfit(
    examples: Sequence[Example], config: DataConfig, template: Template
) -> InputError | None:
    """Return the error of the data's first example that the template cannot render.

    It counts the others among the data's first 10,000 examples. None if it can render each alone.
    """
    first: InputError | None = None
    num_more = 0
    for index, example in enumerate(_in_order_of_data(examples)):
        if first is not None and index >= _MAX_COUNTED:
            break
        try:
            template.tokenize(as_trained([example], config))
        except InputError as error:
            num_more += first is not None
            first = first or error
    if first is None or not num_more:
        return first
    count = f"{num_more:,}" if len(examples) <= _MAX_COUNTED else f"at least {num_more:,}"
    more = f"{count} more {'record' if num_more == 1 else 'records'} cannot be rendered either"
    problem, *others = first.problems
    return InputError([replace(problem, message=f"{problem.message} ({more})"), *others])


def _in_order_of_data(examples: Sequence[Example]) -> Sequence[Example]:
    """Return the different examples in the order of the data: the split shuffles them."""
    if isinstance(examples, StoredExamples):
        return examples.in_order_of_data()
    return sorted({one.id: one for one in examples}.values(), key=_place)


def _place(example: Example) -> tuple[int, list[tuple[int, str]]]:
    """Return a key by which line 2 precedes line 10."""
    parts = re.findall(r"\d+|\D+", example.id)
    return example.source, [(int(one), "") if one.isdecimal() else (-1, one) for one in parts]


def _truncate(
    example: Example, whole: UntruncatedExample, config: DataConfig, template: Template
) -> TruncatedExample | None:
    """Return an example with at most data.max_length tokens; None if the settings exclude it."""
    if whole.num_tokens > config.max_length and config.too_long != "truncate":
        return None
    return template.truncate(
        example,
        whole,
        config.max_length,
        cut_completion=config.too_long_completion == "truncate",
    )


def _counts(
    example: Example, whole: UntruncatedExample, truncated: TruncatedExample
) -> dict[str, int]:
    """Return what happened to an example that is used, by the names in `EncodingCounts`."""
    num_truncated_tokens = truncated.tokens.num_truncated_tokens
    counts = {
        "num_truncated_examples": int(num_truncated_tokens > 0),
        "num_truncated_tokens": num_truncated_tokens,
        "num_removed_turns": truncated.num_removed_turns,
        "num_cut_prompts": int(truncated.has_cut_texts),
        "num_cut_completions": int(truncated.has_cut_completion),
        "num_zero_weight_turns": sum(turn.train is False for turn in example.messages),
        "num_chats_without_thinking": int(whole.hides_thinking),
        "num_chats_without_names": int(whole.hides_name),
        "num_tokenised_examples": int(example.tokens is not None),
    }
    return {name: count for name, count in counts.items() if count}


def _too_long_problem(whole: UntruncatedExample, config: DataConfig) -> Problem:
    limit = f"data.max_length {config.max_length}"
    if config.too_long == "error":
        return Problem(
            message=f"the example has {whole.num_tokens} tokens, more than {limit}",
            where=whole.id,
            fix="raise data.max_length, shorten the example, or set data.too_long to truncate or"
            " drop",
        )
    return Problem(
        message=(
            f"the example has {whole.num_tokens} tokens and does not fit {limit}: the completion,"
            f" {len(whole.completion_ids)} tokens, would lose its end"
        ),
        where=whole.id,
        fix="raise data.max_length, shorten the example, or set data.too_long_completion to drop"
        " or truncate",
    )


def _no_examples_problem(config: DataConfig, num_examples: int) -> Problem:
    if not num_examples:
        return Problem(message="no training examples", where=config.label)
    if config.too_long == "drop":
        return Problem(
            message=(
                f"every example has more tokens than data.max_length {config.max_length}, and"
                " data.too_long is drop"
            ),
            where=config.label,
            fix="raise data.max_length, or set data.too_long to truncate",
        )
    return Problem(
        message=(
            f"no example fits data.max_length {config.max_length}: template and completion alone"
            " have more tokens"
        ),
        where=config.label,
        fix="raise data.max_length",
    )
