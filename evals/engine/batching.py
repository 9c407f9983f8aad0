"""Batches of like length, and their tensors."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Progress = Callable[[int, int], None]
"""Told how many items are done and how many there are, after every batch."""


def sorted_batches(lengths: Sequence[int], batch_size: int, *, pass_cost: int) -> list[list[int]]:
    """Indices of `lengths` in batches of at most `batch_size`, longest first.

    Like beside like keeps padding small; longest first shows a lack of memory at once. Of all
    ways to cut the sorted sequences into batches this one has the fewest tokens, padding and
    all, when every batch costs `pass_cost` tokens more.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    # From the end: the least cost of the sequences from `start` on, and their first batch's size.
    least: list[tuple[int, int]] = [(0, 0)] * (len(order) + 1)
    for start in reversed(range(len(order))):
        longest = lengths[order[start]]
        largest = min(batch_size, len(order) - start)
        least[start] = min(
            (pass_cost + size * longest + least[start + size][0], size)
            for size in range(1, largest + 1)
        )
    batches = []
    start = 0
    while start < len(order):
        size = least[start][1]
        batches.append(order[start : start + size])
        start += size
    return batches


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Tokens of a group of rows that share what they begin with: that, then the rest of each."""

    num_shared: int
    num_rows: int
    longest_rest: int

    @property
    def num_tokens(self) -> int:
        """What the group costs to read by itself."""
        return self.num_shared + self.num_rows * self.longest_rest


def shaped_batches(
    shapes: Sequence[Shape], *, max_rows: int, max_tokens: int | None, pass_cost: int
) -> list[list[int]]:
    """Indices of `shapes` in batches that cost the fewest tokens, padding and all.

    As `sorted_batches`, but what is shared and what is not are padded apart. A batch has at most
    `max_rows` rows, and at most `max_tokens` tokens that are remembered, or is one group.
    """
    lengths = [
        [shape.num_tokens for shape in shapes],
        [shape.num_shared for shape in shapes],
    ]
    orders = [sorted(range(len(of)), key=of.__getitem__, reverse=True) for of in lengths]
    cuts = [_cut(shapes, order, max_rows, max_tokens, pass_cost) for order in orders]
    return min(cuts, key=lambda cut: cut[0])[1]


def _cut(
    shapes: Sequence[Shape],
    order: Sequence[int],
    max_rows: int,
    max_tokens: int | None,
    pass_cost: int,
) -> tuple[int, list[list[int]]]:
    """The cheapest batches of shapes that are in this order, and what they cost."""
    # From the end: the least cost of the groups from `start` on, and their first batch's size.
    least: list[tuple[int, int]] = [(0, 0)] * (len(order) + 1)
    for start in reversed(range(len(order))):
        shared = rest = rows = 0
        best: tuple[int, int] | None = None
        for size, index in enumerate(order[start:], start=1):
            shape = shapes[index]
            shared, rest = max(shared, shape.num_shared), max(rest, shape.longest_rest)
            rows += shape.num_rows
            is_large = max_tokens is not None and rows * (shared + rest) > max_tokens
            if best is not None and (rows > max_rows or is_large):
                break
            cost = pass_cost + size * shared + rows * rest + least[start + size][0]
            best = min(best, (cost, size)) if best is not None else (cost, size)
        assert best is not None
        least[start] = best
    batches = []
    start = 0
    while start < len(order):
        size = least[start][1]
        batches.append(list(order[start : start + size]))
        start += size
    return least[0][0], batches


def run_batches(batches: Sequence[list[int]], run: Callable[[list[int]], None]) -> None:
    """Call `run` for every batch; one that does not fit into memory is halved, then tried again.

    Those behind it are cut to what did fit.
    """
    left = deque(batches)
    largest: int | None = None
    while left:
        batch = left.popleft()
        if largest is not None and len(batch) > largest:
            left.extendleft([batch[largest:], batch[:largest]])
            continue
        try:
            run(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        else:
            continue
        # Outside of the handler, which holds on to the tensors of what failed.
        torch.cuda.empty_cache()
        largest = len(batch) // 2
        left.appendleft(batch)


def pad(
    sequences: Sequence[Sequence[int]], *, side: Literal["left", "right"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of `sequences`, both int64 (B, T), padded on `side`."""
    width = max(map(len, sequences))
    # Token 0 stands in the padding of any vocabulary; the mask is 0 there.
    input_ids_BT = torch.zeros(len(sequences), width, dtype=torch.long)
    mask_BT = torch.zeros_like(input_ids_BT)
    for row, ids in enumerate(sequences):
        columns = slice(width - len(ids), width) if side == "left" else slice(len(ids))
        input_ids_BT[row, columns] = torch.tensor(ids, dtype=torch.long)
        mask_BT[row, columns] = 1
    return input_ids_BT.to(device), mask_BT.to(device)
