"""Batches of like length, and their tensors."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Progress = Callable[[int, int], None]
"""Told how many items are done and how many there are, after every batch."""


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of `lengths` in batches of at most `batch_size`, longest first.

    Like beside like keeps padding small; longest first shows a lack of memory at once.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


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
