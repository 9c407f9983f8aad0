"""Load the inputs of a run: tokenizer, and training and held-out examples as tokens.

They are cached for the next run in the same process, because most runs of a sweep use the same
model and data. On warm workers, reading them again took a quarter of a short trial's overhead.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from trainers.config import ModelConfig
from trainers.data.file_versions import FileVersion, file_versions
from trainers.data.readers import data_paths
from trainers.data.reading_counts import ReadingCounts
from trainers.data.roles import EncodedExample
from trainers.data.template import Template
from trainers.data.template_source import with_date
from trainers.data.tokenize import encode_examples, encode_heldout, read_split
from trainers.data.tokenized import EncodedExamples
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError, Problem
from trainers.models.loading import load_tokenizer, resolve_model_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Tokenizer and encoded examples, shared between runs; do not modify them.

    `end_token_id` ends a completion. `reading` counts what was left out of the records.
    """

    tokenizer: PreTrainedTokenizerBase
    examples: EncodedExamples
    heldout: list[EncodedExample]
    end_token_id: int
    reading: ReadingCounts


def load_training_data(
    model: ModelConfig, data: DataConfig, *, with_heldout: bool, is_main: bool
) -> TrainingData:
    """Return the inputs of a run; they are read again only if one of their files has changed.

    Args:
        with_heldout: also return the held-out examples.
        is_main: log what was truncated, dropped and ignored.

    Raises:
        InputError: the tokenizer or the data cannot be read, or they do not match.
    """
    num_hits = _read.cache_info().hits
    versions = (*_versions([*data_paths(data), Path(data.template)]), *_tokenizer_versions(model))
    # As JSON, because the template's arguments are not hashable.
    training_data = _read(model, data.model_dump_json(), with_heldout, is_main, versions)
    if is_main and _read.cache_info().hits > num_hits:
        for line in training_data.examples.counts.lines(data.max_length):
            log.info("%s", line)
    if is_main:
        for line in training_data.reading.lines():
            log.info("%s: %s", data.label, line)
    return training_data


def with_template_date(model: ModelConfig, data: DataConfig, today: date) -> DataConfig:
    """Return the settings of the data with this date, if their template needs one.

    Raises:
        InputError: the tokenizer or the template cannot be read.
    """
    return with_date(data, _tokenizer(model, _tokenizer_versions(model)), today)


def check_token_ids(
    examples: EncodedExamples,
    heldout: Sequence[EncodedExample],
    num_embeddings: int,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Check that the model has an embedding for each token of the data.

    Raises:
        InputError: a token has no embedding, usually because it was added only to the tokenizer.
    """
    ids = [int(np.max(example.input_ids)) for example in heldout]
    largest = max(examples.max_token_id(), *ids, 0)
    if largest >= num_embeddings:
        token = tokenizer.convert_ids_to_tokens(largest)
        name = f"the token {token} with id {largest}"
        fix = (
            "resize the model's embeddings with resize_token_embeddings and save it, or use the"
            " tokenizer that came with the model"
        )
        if token is None:  # Only records with input_ids can contain it.
            name = f"the token id {largest}, which the tokenizer does not have"
            fix = "create input_ids with the tokenizer of this model"
        raise InputError(
            Problem(
                message=f"the data contains {name}, but the model only has embeddings for ids below"
                f" {num_embeddings}",
                fix=fix,
            )
        )


@lru_cache(maxsize=1)
def _tokenizer(model: ModelConfig, versions: tuple[FileVersion, ...]) -> PreTrainedTokenizerBase:
    return load_tokenizer(model)


@lru_cache(maxsize=1)
def _read(
    model: ModelConfig,
    data_json: str,
    with_heldout: bool,
    is_main: bool,
    versions: tuple[FileVersion, ...],
) -> TrainingData:
    tokenizer = _tokenizer(model, _tokenizer_versions(model))
    data = DataConfig.model_validate_json(data_json)
    split = read_split(data, is_main=is_main)
    examples = encode_examples(split.train, data, tokenizer, is_main=is_main)
    heldout = encode_heldout(split.heldout, data, tokenizer) if with_heldout else []
    end_token_id = Template(data.template, tokenizer, args=data.template_args).end_token_id
    return TrainingData(tokenizer, examples, heldout, end_token_id, split.reading)


def _tokenizer_versions(model: ModelConfig) -> tuple[FileVersion, ...]:
    folder = Path(resolve_model_path(model.path))
    return _versions(sorted({*folder.glob("*token*"), *folder.glob("*.jinja")}))


def _versions(files: Iterable[Path]) -> tuple[FileVersion, ...]:
    return file_versions([file for file in files if file.is_file()])
