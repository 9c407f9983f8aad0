"""Batches of like length, and their tensors."""

from collections.abc import Callable, Sequence
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
