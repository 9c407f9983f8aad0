"""Tokenised examples as Arrow columns, in memory or memory-mapped from a file."""

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
import pyarrow
from numpy.typing import NDArray

from trainers.data.arrow_files import read_batches, write_batches
from trainers.data.encoding_counts import EncodingCounts
from trainers.data.roles import EncodedExample, Role

_SCHEMA = pyarrow.schema(
    [
        pyarrow.field("id", pyarrow.large_string(), nullable=False),
        pyarrow.field("input_ids", pyarrow.large_list(pyarrow.int32()), nullable=False),
        pyarrow.field("roles", pyarrow.large_list(pyarrow.int8()), nullable=False),
        pyarrow.field("num_truncated_tokens", pyarrow.int32(), nullable=False),
        pyarrow.field("weights", pyarrow.large_list(pyarrow.float32())),
        pyarrow.field("sample_weight", pyarrow.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class EncodedBatch:
    """The columns of consecutive examples, and their counts; there may be no examples."""

    columns: pyarrow.RecordBatch
    counts: EncodingCounts

    @classmethod
    def of(cls, examples: Sequence[EncodedExample], counts: EncodingCounts) -> "EncodedBatch":
        offsets = np.cumsum([0, *(len(example.roles) for example in examples)], dtype=np.int64)
        tokens = np.fromiter(chain.from_iterable(e.input_ids for e in examples), dtype=np.int32)
        roles = np.fromiter(chain.from_iterable(e.roles for e in examples), dtype=np.int8)
        weights = [
            None if e.weights is None else np.asarray(e.weights, np.float32) for e in examples
        ]
        columns = [
            pyarrow.array([example.id for example in examples], pyarrow.large_string()),
            pyarrow.LargeListArray.from_arrays(offsets, tokens),
            pyarrow.LargeListArray.from_arrays(offsets, roles),
            pyarrow.array([e.num_truncated_tokens for e in examples], pyarrow.int32()),
            pyarrow.array(weights, pyarrow.large_list(pyarrow.float32())),
            pyarrow.array([e.sample_weight for e in examples], pyarrow.float64()),
        ]
        return cls(pyarrow.record_batch(columns, schema=_SCHEMA), counts)


class EncodedExamples:
    """A sequence of tokenised examples in batches; items are views without copies of the tokens.

    `lengths` are the token counts of the N examples, int64 (N,).
    """

    def __init__(self, batches: Sequence[pyarrow.RecordBatch], counts: EncodingCounts) -> None:
        self.counts = counts
        self._batches = [_Batch(batch) for batch in batches]
        self._starts = list(accumulate((len(one.lengths) for one in self._batches), initial=0))
        self.lengths: NDArray[np.int64] = np.concatenate([one.lengths for one in self._batches])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> EncodedExample:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        position = index % len(self)
        number = bisect_right(self._starts, position) - 1
        return self._batches[number].example(position - self._starts[number])

    def __iter__(self) -> Iterator[EncodedExample]:
        return map(self.__getitem__, range(len(self)))

    def ids_with_weight(self, role: Role, weight: float) -> list[str]:
        """Return the ids of the examples in which the data gives `weight` to a token of `role`."""
        return [id for one in self._batches for id in one.ids_with_weight(role, weight)]

    def max_token_id(self) -> int:
        """Return the largest token id of all examples."""
        return max(int(one.input_ids.max(initial=0)) for one in self._batches)

    def role_counts(self) -> dict[Role, NDArray[np.int64]]:
        """Return the number of tokens of each role in each example, (N,)."""
        per_batch = [one.role_counts() for one in self._batches]
        return dict(zip(Role, np.concatenate(per_batch, axis=1), strict=True))

    @classmethod
    def of(cls, batches: Iterable[EncodedBatch]) -> "EncodedExamples":
        """Return the examples of the batches, in memory; there must be at least one."""
        found = list(batches)
        return cls(
            [one.columns for one in found],
            sum((one.counts for one in found), EncodingCounts(num_examples=0)),
        )

    @classmethod
    def read(cls, path: Path) -> "EncodedExamples":
        """Return the examples in the file `path`, memory-mapped and shared by all processes.

        Raises:
            OSError: the file does not exist or cannot be read.
            CorruptFileError: the file's content differs from what was written.
        """
        batches, summary = read_batches(path)
        return cls(batches, EncodingCounts(**json.loads(summary["counts"])))

    @staticmethod
    def write(path: Path, batches: Iterable[EncodedBatch]) -> None:
        """Write the batches to `path`, one after the other, and their total counts.

        Raises:
            OSError: the file cannot be written.
        """
        counts = EncodingCounts(num_examples=0)
        with write_batches(path, _SCHEMA) as file:
            for batch in batches:
                file.write(batch.columns)
                counts += batch.counts
            file.finish({"counts": json.dumps(asdict(counts))})


class _Batch:
    """The columns of consecutive examples.

    `roles` and `input_ids` are those of all examples, concatenated. Those of example i are at
    `offsets[i]` to `offsets[i + 1]`.
    """

    def __init__(self, columns: pyarrow.RecordBatch) -> None:
        self._ids = columns.column("id")
        self._num_truncated_tokens = columns.column("num_truncated_tokens").to_numpy()
        self.input_ids: NDArray[np.int32] = columns.column("input_ids").values.to_numpy()
        self._roles: NDArray[np.int8] = columns.column("roles").values.to_numpy()
        self._offsets: NDArray[np.int64] = columns.column("roles").offsets.to_numpy()
        self.lengths: NDArray[np.int64] = np.diff(self._offsets)
        weights = columns.column("weights")
        self._weights: NDArray[np.float32] = weights.values.to_numpy()
        # The weights of an example without any take no space.
        self._weight_offsets: NDArray[np.int64] = weights.offsets.to_numpy()
        self._sample_weights: NDArray[np.float64] = columns.column("sample_weight").to_numpy()

    def example(self, position: int) -> EncodedExample:
        tokens = slice(self._offsets[position], self._offsets[position + 1])
        weights = self._weights[slice(*self._weight_offsets[position : position + 2])]
        return EncodedExample(
            id=self._ids[position].as_py(),
            input_ids=self.input_ids[tokens],
            roles=self._roles[tokens],
            num_truncated_tokens=int(self._num_truncated_tokens[position]),
            weights=weights if len(weights) else None,
            sample_weight=float(self._sample_weights[position]),
        )

    def ids_with_weight(self, role: Role, weight: float) -> list[str]:
        if not len(self._weights):
            return []
        num_weights = np.diff(self._weight_offsets)
        examples = np.repeat(np.arange(len(self.lengths)), num_weights)
        roles = self._roles[np.repeat(num_weights > 0, self.lengths)]
        found = np.unique(examples[(roles == role) & (self._weights == weight)])
        ids: list[str] = self._ids.take(pyarrow.array(found)).to_pylist()
        return ids

    def role_counts(self) -> NDArray[np.int64]:
        """Return the number of tokens by role and example, (number of roles, N)."""
        num_roles, num_examples = len(Role), len(self.lengths)
        cells = np.repeat(np.arange(num_examples) * num_roles, self.lengths) + self._roles
        counts = np.bincount(cells, minlength=num_roles * num_examples)
        return counts.reshape(num_examples, num_roles).T
