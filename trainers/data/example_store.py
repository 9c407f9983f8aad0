"""The parsed examples of a data set in a cache file: parsed once, never all in memory.

Ranks and trials map the file and decode an example when they use it. Memory is 8 bytes per example.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pydantic import TypeAdapter

from trainers.data.arrow_files import read_batches, write_batches
from trainers.data.data_files import find_data_files, is_local
from trainers.data.examples import Example
from trainers.data.file_versions import file_versions
from trainers.data.hub import hub_files
from trainers.data.readers import iter_examples
from trainers.data.reading_counts import ReadingCounts
from trainers.data_config import DataConfig, SourceConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.file_cache import load_or_write

# Part of the key: increase it when the file format changes.
_FORMAT_VERSION = 2
_SCHEMA = pyarrow.schema([pyarrow.field("example", pyarrow.large_string(), nullable=False)])
_BATCH = 1000  # examples
_EXAMPLE = TypeAdapter(Example)

# Settings that do not affect which examples are read.
_OTHER_SETTINGS = {
    *("path", "sources", "template", "template_args", "completion_turns", "max_length", "too_long"),
    *("truncation_side", "too_long_completion"),
    *("heldout_examples", "train_examples", "seed"),
}


class StoredExamples(Sequence[Example]):
    """A selection of the examples in a file; an example is decoded at each access.

    `digest` is a SHA-256, in hexadecimal, of the examples and their order.
    """

    def __init__(
        self,
        batches: Sequence[pyarrow.RecordBatch],
        file_digest: str,
        indices: NDArray[np.int64],
    ) -> None:
        self._batches = batches
        self._file_digest = file_digest
        self._indices = indices

    @property
    def digest(self) -> str:
        return hashlib.sha256(self._file_digest.encode() + self._indices.tobytes()).hexdigest()

    def select(self, positions: NDArray[np.int64]) -> "StoredExamples":
        """Return the examples at `positions`, in their order."""
        return StoredExamples(self._batches, self._file_digest, self._indices[positions])

    def in_order_of_data(self) -> "StoredExamples":
        """Return the different examples in the order of the data."""
        return StoredExamples(self._batches, self._file_digest, np.unique(self._indices))

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredExamples": ...
    def __getitem__(self, index: int | slice) -> "Example | StoredExamples":
        if isinstance(index, slice):
            return StoredExamples(self._batches, self._file_digest, self._indices[index])
        batch, row = divmod(int(self._indices[index]), _BATCH)
        return _EXAMPLE.validate_json(self._batches[batch].column(0)[row].as_py())

    def __iter__(self) -> Iterator[Example]:
        return map(self.__getitem__, range(len(self)))


def open_examples(
    config: DataConfig, counts: ReadingCounts | None = None, *, is_main: bool = True
) -> Sequence[Example]:
    """Return the examples of the configured data, in their order.

    Files are parsed if they, or our code, changed since the last call on this machine. Other
    sources, and files for which the default cache folder is not writable, are read into memory.

    Args:
        counts: the counts of dropped records and ignored fields are added to it.
        is_main: log warnings.

    Raises:
        InputError: the data has problems, changed while it was read, or cannot be cached.
    """
    key = _key(config)
    if key is None:
        return list(iter_examples(config, counts))
    stored = load_or_write(
        f"examples/{key}.arrow",
        content="examples",
        read=_read,
        write=lambda path: _parse(config, key, path),
        is_main=is_main,
    )
    if stored is None:
        return list(iter_examples(config, counts))
    examples, stored_counts = stored
    if counts is not None:
        counts.update(stored_counts)
    return examples


def _key(config: DataConfig) -> str | None:
    """Return the digest of everything that determines the examples; None if it is unknown."""
    try:
        versions = [_version(source) for source in config.all_sources()]
    except (InputError, OSError):
        return None  # Reading reports the problems of all sources.
    if None in versions:
        return None
    settings = config.model_dump(mode="json", exclude=_OTHER_SETTINGS)
    columns = [source.columns for source in config.all_sources()]
    inputs = [_FORMAT_VERSION, _code_digest(), settings, columns, versions]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _version(source: SourceConfig) -> list[object] | None:
    """Return a version of the records and of their names in ids; None if it is unknown."""
    if source.path.startswith("demo:"):
        return [source.path, sys.version]
    if is_local(source.path):
        files = find_data_files(source.path)
        return [[file.name for file in files], file_versions([file.path for file in files])]
    paths = hub_files(source)
    return [source.path, source.split, file_versions(paths)] if paths else None


def _code_digest() -> str:
    """Return a digest of the code of trainers, because examples of other code may differ."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _parse(config: DataConfig, key: str, output: Path) -> None:
    """Write the examples to `output`.

    Raises:
        InputError: the data has problems or changed while it was read.
        OSError: the file cannot be written.
    """
    digest = hashlib.sha256()
    counts = ReadingCounts()
    num_examples = 0
    with write_batches(output, _SCHEMA) as file:
        lines = map(_to_json, iter_examples(config, counts))
        while chunk := list(islice(lines, _BATCH)):
            num_examples += len(chunk)
            digest.update("\n".join([*chunk, ""]).encode())
            column = pyarrow.array(chunk, pyarrow.large_string())
            file.write(pyarrow.record_batch([column], schema=_SCHEMA))
        file.finish(
            {
                "num_examples": str(num_examples),
                "sha256": digest.hexdigest(),
                "counts": counts.to_json(),
            }
        )
    if _key(config) != key:
        raise InputError(
            Problem(
                message="the data changed while it was read",
                where=config.label,
                fix="start again when it is complete",
            )
        )


def _read(path: Path) -> tuple[StoredExamples, ReadingCounts]:
    batches, summary = read_batches(path)
    indices = np.arange(int(summary["num_examples"]))
    examples = StoredExamples(batches, summary["sha256"], indices)
    return examples, ReadingCounts.from_json(summary["counts"])


def _to_json(example: Example) -> str:
    # Parquet files may contain decimal numbers and other values that only have a text form.
    return _EXAMPLE.dump_json(example, exclude_defaults=True, fallback=str).decode()
