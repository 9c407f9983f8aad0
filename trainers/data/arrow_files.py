"""Arrow stream files with a summary and a checksum, written in batches and memory-mapped."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow
import xxhash

from trainers.foundation.file_cache import CorruptFileError

_CHECKSUM_BYTES = xxhash.xxh3_128().digest_size


class BatchWriter:
    """Writes record batches; `finish` must be the last call."""

    def __init__(self, stream: pyarrow.ipc.RecordBatchStreamWriter, schema: pyarrow.Schema) -> None:
        self._stream = stream
        self._schema = schema

    def write(self, batch: pyarrow.RecordBatch) -> None:
        """Append a batch."""
        self._stream.write_batch(batch)

    def finish(self, summary: Mapping[str, str]) -> None:
        """Append the summary of all batches, as the metadata of an empty batch."""
        empty = self._schema.empty_table().to_batches()
        nothing = empty[0] if empty else pyarrow.RecordBatch.from_pylist([], schema=self._schema)
        self._stream.write_batch(nothing, custom_metadata=dict(summary))


@contextmanager
def write_batches(path: Path, schema: pyarrow.Schema) -> Iterator[BatchWriter]:
    """Open a file for batches of `schema`.

    Raises:
        OSError: the file cannot be written.
    """
    with _ChecksumFile(path) as file:
        with pyarrow.ipc.new_stream(file, schema) as stream:
            yield BatchWriter(stream, schema)
        file.write(file.checksum.digest())


def read_batches(path: Path) -> tuple[list[pyarrow.RecordBatch], dict[str, str]]:
    """Return the batches and the summary of a file that `write_batches` wrote.

    The batches are views of the mapped file, which all processes share.

    Raises:
        OSError: the file does not exist or cannot be read.
        CorruptFileError: the file's content differs from what was written.
    """
    with path.open("rb"):
        pass  # Arrow's errors do not distinguish a missing file from a corrupt one.
    try:
        mapped = pyarrow.memory_map(str(path)).read_buffer()
        end = len(mapped) - _CHECKSUM_BYTES
        if xxhash.xxh3_128(mapped[:end]).digest() != mapped[end:].to_pybytes():
            raise CorruptFileError("the checksum does not match")
        found = list(pyarrow.ipc.open_stream(mapped).iter_batches_with_custom_metadata())
        *full, last = found
        summary = {key.decode(): value.decode() for key, value in last.custom_metadata.items()}
    except Exception as error:
        raise CorruptFileError(str(error)) from error
    return [one.batch for one in full], summary


class _ChecksumFile(io.BufferedWriter):
    """A file whose checksum is computed while it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.checksum = xxhash.xxh3_128()

    def write(self, content: "io.ReadableBuffer") -> int:  # type: ignore[name-defined]
        self.checksum.update(content)
        return super().write(content)
