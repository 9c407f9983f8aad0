"""Split sequences into batches of similar length, pad them, and run the batches.

Shapes: B sequences, T tokens.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ProgressCallback = Callable[[int, int], None]
"""Called after every batch with the number of finished items and the total number."""


def ignore_progress(*_: object) -> None:
    """Ignore a progress report."""


@dataclass(frozen=True, kw_only=True)
class GroupShape:
    """Token counts of a group of rows with a shared prefix."""

    num_prefix_tokens: int
    num_rows: int
    max_suffix_tokens: int

    @property
    def num_tokens(self) -> int:
        """Return the number of processed tokens if the group is its own batch."""
        return self.num_prefix_tokens + self.num_rows * self.max_suffix_tokens


def sorted_batches(
    lengths: Sequence[int], batch_size: int, *, forward_overhead: int
) -> list[list[int]]:
    """Return the indices of `lengths` in batches of at most `batch_size`, longest first.

    Sorting by length keeps padding small. Starting with the longest batch shows a lack of memory
    early. Among all ways to cut the sorted sequences into batches, this one processes the fewest
    tokens, including padding and `forward_overhead` tokens per batch.
    """
    shapes = [GroupShape(num_prefix_tokens=0, num_rows=1, max_suffix_tokens=n) for n in lengths]
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    return _cheapest_batches(shapes, order, batch_size, None, forward_overhead)[1]


def prefix_batches(
    shapes: Sequence[GroupShape], *, max_rows: int, max_tokens: int | None, forward_overhead: int
) -> list[list[int]]:
    """Return the indices of `shapes` in the batches that process the fewest tokens.

    This works like `sorted_batches`, but prefixes and suffixes are padded separately. A batch has
    at most `max_rows` rows and at most `max_tokens` tokens in its key-value cache, unless it is a
    single group.
    """
    lengths = [
        [shape.num_tokens for shape in shapes],
        [shape.num_prefix_tokens for shape in shapes],
    ]
    orders = [sorted(range(len(keys)), key=keys.__getitem__, reverse=True) for keys in lengths]
    candidates = [
        _cheapest_batches(shapes, order, max_rows, max_tokens, forward_overhead) for order in orders
    ]
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _cheapest_batches(
    shapes: Sequence[GroupShape],
    order: Sequence[int],
    max_rows: int,
    max_tokens: int | None,
    forward_overhead: int,
) -> tuple[int, list[list[int]]]:
    """Return the lowest cost in tokens, and the batches with this cost, for groups in `order`."""
    # Dynamic programming from the end: the lowest cost of the groups from `start` on, and the size
    # of their first batch.
    best_from: list[tuple[int, int]] = [(0, 0)] * (len(order) + 1)
    for start in reversed(range(len(order))):
        prefix = suffix = rows = 0
        best: tuple[int, int] | None = None
        for size, index in enumerate(order[start:], start=1):
            shape = shapes[index]
            prefix = max(prefix, shape.num_prefix_tokens)
            suffix = max(suffix, shape.max_suffix_tokens)
            rows += shape.num_rows
            is_too_large = max_tokens is not None and rows * (prefix + suffix) > max_tokens
            if best is not None and (rows > max_rows or is_too_large):
                break
            cost = forward_overhead + size * prefix + rows * suffix + best_from[start + size][0]
            best = min(best, (cost, size)) if best is not None else (cost, size)
        assert best is not None
        best_from[start] = best
    batches = []
    start = 0
    while start < len(order):
        size = best_from[start][1]
        batches.append(list(order[start : start + size]))
        start += size
    return best_from[0][0], batches


def run_batches(batches: Sequence[list[int]], run: Callable[[list[int]], None]) -> None:
    """Call `run` for every batch; halve and retry a batch that runs out of memory.

    Later batches are split to the size that fitted.
    """
    pending = deque(batches)
    max_size: int | None = None
    while pending:
        batch = pending.popleft()
        if max_size is not None and len(batch) > max_size:
            pending.extendleft([batch[max_size:], batch[:max_size]])
            continue
        try:
            run(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        else:
            continue
        # Outside the exception handler, which still references the tensors of the failed batch.
        torch.cuda.empty_cache()
        max_size = len(batch) // 2
        pending.appendleft(batch)


def pad(
    sequences: Sequence[Sequence[int]], *, side: Literal["left", "right"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask of `sequences`, both int64 (B, T), padded on `side`."""
    width = max(map(len, sequences))
    # The padding token is 0, which every vocabulary contains. Its mask is 0.
    input_ids_BT = torch.zeros(len(sequences), width, dtype=torch.long)
    mask_BT = torch.zeros_like(input_ids_BT)
    for row, ids in enumerate(sequences):
        columns = slice(width - len(ids), width) if side == "left" else slice(len(ids))
        input_ids_BT[row, columns] = torch.tensor(ids, dtype=torch.long)
        mask_BT[row, columns] = 1
    return input_ids_BT.to(device), mask_BT.to(device)
