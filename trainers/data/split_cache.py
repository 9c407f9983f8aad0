"""Split and mix examples, with an on-disk cache: a split reads the texts of all examples."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow

from trainers.data.arrow_files import read_batches, write_batches
from trainers.data.example_store import StoredExamples
from trainers.data.examples import Example
from trainers.data.mixture import mix
from trainers.data.split import Indices, split_heldout
from trainers.data_config import DataConfig
from trainers.foundation.file_cache import load_or_write

# Part of the key: increase it when the file format or the split changes.
_FORMAT_VERSION = 1
_SCHEMA = pyarrow.schema([pyarrow.field("index", pyarrow.int64(), nullable=False)])


def split_examples(examples: Sequence[Example], config: DataConfig) -> tuple[Indices, Indices]:
    """Return the indices of (the training examples of one epoch, the held-out examples).

    Raises:
        InputError: see `split_heldout` and `mix`.
    """
    train, heldout = split_heldout(
        examples, heldout_examples=config.heldout_examples, seed=config.seed
    )
    if config.sources:
        train = train[mix([examples[index].source for index in train], config)]
    return train, heldout


def load_or_split(
    examples: StoredExamples, config: DataConfig, *, is_main: bool = True
) -> tuple[Indices, Indices]:
    """Return the result of `split_examples` from the cache, or compute and store it.

    Raises:
        InputError: see `split_examples`; or PLW_CACHE_DIR is not writable.
    """
    mixture = [(source.repeat, source.proportion) for source in config.sources]
    inputs = [_FORMAT_VERSION, examples.digest, config.heldout_examples, config.seed, mixture]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    stored = load_or_write(
        f"splits/{key}.arrow",
        content="split",
        read=_read,
        write=lambda path: _write(path, *split_examples(examples, config)),
        is_main=is_main,
    )
    return split_examples(examples, config) if stored is None else stored


def _write(path: Path, train: Indices, heldout: Indices) -> None:
    with write_batches(path, _SCHEMA) as file:
        for indices in (train, heldout):
            file.write(pyarrow.record_batch([pyarrow.array(indices)], schema=_SCHEMA))
        file.finish({})


def _read(path: Path) -> tuple[Indices, Indices]:
    batches, _ = read_batches(path)
    train, heldout = (batch.column("index").to_numpy() for batch in batches)
    return train, heldout
