"""The examples of a fine-tune, read, split and tokenised."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from trainers.config import DataConfig
from trainers.errors import InputError, Problem
from trainers.examples import Example
from trainers.records import read_examples, split_heldout
from trainers.roles import Encoded, Template


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
    examples: Sequence[Example], config: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Encoded]:
    """The examples as tokens and roles.

    Raises:
        InputError: an example has no prompt token left beside its completion.
    """
    template = Template(config.template, tokenizer)
    encoded = [template.encode(example, config.max_length) for example in examples]
    if not encoded:
        raise InputError(Problem(message="there is no training example", where=config.path))
    return encoded
