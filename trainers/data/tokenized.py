"""Tokenised examples as four Arrow columns, in memory or mapped from a file."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray

from trainers.data.roles import Encoded, Role

_SCHEMA = pyarrow.schema(
    [
        pyarrow.field("id", pyarrow.large_string(), nullable=False),
        pyarrow.field("input_ids", pyarrow.large_list(pyarrow.int32()), nullable=False),
        pyarrow.field("roles", pyarrow.large_list(pyarrow.int8()), nullable=False),
        pyarrow.field("num_truncated_tokens", pyarrow.int32(), nullable=False),
    ]
)


class DamagedFileError(Exception):
    """A file that is not, or no longer, what `EncodedExamples.write` wrote."""


@dataclass(frozen=True, kw_only=True)
class LengthCounts:
    """How many examples there are, and what became of those that were too long.

    A truncated example has lost tokens; `num_cut_completions` of them have lost the end of their
    completion, with its end-of-sequence token, too. A dropped one is not among the
    `num_examples`, and all of its tokens are lost.
    """

    num_examples: int
    num_truncated_examples: int = 0
    num_truncated_tokens: int = 0
    num_cut_completions: int = 0
    num_dropped_examples: int = 0
    num_dropped_tokens: int = 0

    def sentence(self, max_length: int) -> str:
        """The counts for a person; `max_length` is the limit that they are of."""
        total = self.num_examples + self.num_dropped_examples
        if not self.num_truncated_examples and not self.num_dropped_examples:
            return f"{total} examples, none above {max_length} tokens"
        parts = [f"{total} examples"]
        if self.num_dropped_examples:
            parts.append(
                f"{self.num_dropped_examples} dropped with {self.num_dropped_tokens} tokens for"
                f" being longer than {max_length}"
            )
        if self.num_truncated_examples:
            parts.append(
                f"{self.num_truncated_examples} cut to {max_length} tokens, which lost"
                f" {self.num_truncated_tokens}"
            )
        if self.num_cut_completions:
            parts.append(
                f"{self.num_cut_completions} of them without the end of their completion and its"
                " end-of-sequence token"
            )
        return ", ".join(parts)


class EncodedExamples:
    """Tokenised examples by index. Whatever is read from it is a view: nothing is copied.

    `lengths` are the examples' tokens, int64 (N,) for N examples. `roles` holds the roles of all
    of them back to back, int8; those of example i stand at `offsets[i]` to `offsets[i + 1]`.
    """

    def __init__(self, columns: pyarrow.RecordBatch, counts: LengthCounts) -> None:
        self.counts = counts
        self._columns = columns
        self._ids = columns.column("id")
        self._num_truncated_tokens = columns.column("num_truncated_tokens").to_numpy()
        self._input_ids: NDArray[np.int32] = columns.column("input_ids").values.to_numpy()
        self.roles: NDArray[np.int8] = columns.column("roles").values.to_numpy()
        self.offsets: NDArray[np.int64] = columns.column("roles").offsets.to_numpy()
        self.lengths: NDArray[np.int64] = np.diff(self.offsets)

    @classmethod
    def of(cls, examples: Sequence[Encoded], counts: LengthCounts) -> "EncodedExamples":
        """`examples`, of which there is at least one, in columns."""
        offsets = np.cumsum([0, *(len(example.roles) for example in examples)], dtype=np.int64)
        tokens = np.concatenate([example.input_ids for example in examples], dtype=np.int32)
        roles = np.concatenate([example.roles for example in examples], dtype=np.int8)
        columns = pyarrow.record_batch(
            [
                pyarrow.array([example.id for example in examples], pyarrow.large_string()),
                pyarrow.LargeListArray.from_arrays(offsets, tokens),
                pyarrow.LargeListArray.from_arrays(offsets, roles),
                pyarrow.array([e.num_truncated_tokens for e in examples], pyarrow.int32()),
            ],
            schema=_SCHEMA,
        )
        return cls(columns, counts)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Encoded:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        position = index % len(self)
        part = slice(self.offsets[position], self.offsets[position + 1])
        return Encoded(
            id=self._ids[position].as_py(),
            input_ids=self._input_ids[part],
            roles=self.roles[part],
            num_truncated_tokens=int(self._num_truncated_tokens[position]),
        )

    def __iter__(self) -> Iterator[Encoded]:
        return map(self.__getitem__, range(len(self)))

    def target_counts(self) -> dict[Role, int]:
        """Targets by role in all examples: every token but the first of each."""
        firsts = self.roles[self.offsets[:-1]]
        return {
            role: int(np.count_nonzero(self.roles == role) - np.count_nonzero(firsts == role))
            for role in Role
        }

    def write(self, path: Path) -> None:
        """Put the columns and the counts at `path` as an Arrow file with a checksum.

        Raises:
            OSError: it cannot be written.
        """
        counts = json.dumps(asdict(self.counts))
        metadata = {"counts": counts, "sha256": self._sha256(counts)}
        columns = self._columns.replace_schema_metadata(metadata)
        with (
            pyarrow.OSFile(str(path), "wb") as file,
            pyarrow.ipc.new_file(file, columns.schema) as writer,
        ):
            writer.write_batch(columns)

    @classmethod
    def read(cls, path: Path) -> "EncodedExamples":
        """What was written at `path`, mapped into memory that all processes share.

        Raises:
            OSError: there is no such file, or it cannot be read.
            DamagedFileError: its content is not what was written.
        """
        with path.open("rb"):
            pass  # Arrow's own errors do not tell a missing file from a damaged one.
        try:
            reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
            columns = reader.get_batch(0)
            metadata = {k.decode(): v.decode() for k, v in columns.schema.metadata.items()}
            examples = cls(columns, LengthCounts(**json.loads(metadata["counts"])))
            intact = examples._sha256(metadata["counts"]) == metadata["sha256"]
        except Exception as error:
            raise DamagedFileError(str(error)) from error
        if not intact:
            raise DamagedFileError("its checksum is another")
        return examples

    def _sha256(self, counts: str) -> str:
        digest = hashlib.sha256(counts.encode())
        for column in (self._input_ids, self.roles, self.offsets, self._num_truncated_tokens):
            digest.update(column.data)
        digest.update(json.dumps(self._ids.to_pylist()).encode())
        return digest.hexdigest()
