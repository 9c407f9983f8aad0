"""Select the examples of a step, split them into micro-batches, and collate them into tensors."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import ScheduleConfig
from trainers.data.roles import EncodedExample, Role


@dataclass(frozen=True)
class MicroBatch:
    """The inputs and targets of one forward pass on one rank; every tensor is (B, T).

    Padded: one row per example, padded on the right. Packed: one row of concatenated examples, with
    their `sequence_lengths`.

    `targets_BT[b, t]` is the token after position t, `target_roles_BT[b, t]` is its role
    (`Role.PADDING` if there is no next token), and `target_weights_BT[b, t]` its loss weight.
    """

    input_ids_BT: Tensor
    targets_BT: Tensor
    target_roles_BT: Tensor
    target_weights_BT: Tensor
    sequence_lengths: tuple[int, ...] | None = None


def num_steps(num_examples: int, global_batch_size: int, schedule: ScheduleConfig) -> int:
    """Return the number of optimizer steps of a run; an incomplete last batch is also a step."""
    if schedule.steps is not None:
        return schedule.steps
    assert schedule.epochs is not None
    steps_per_epoch = math.ceil(num_examples / global_batch_size)
    return max(1, math.ceil(schedule.epochs * steps_per_epoch))


def global_batch_indices(
    step: int, num_examples: int, global_batch_size: int, seed: int
) -> list[int]:
    """Return the example indices of optimizer step `step` (from 0), the same on every rank.

    Each epoch is a new permutation, split into global batches. The last batch may be smaller.
    """
    steps_per_epoch = math.ceil(num_examples / global_batch_size)
    epoch, batch = divmod(step, steps_per_epoch)
    start = batch * global_batch_size
    order = _epoch_order(epoch, num_examples, seed)
    return [int(index) for index in order[start : start + global_batch_size]]


@lru_cache(maxsize=1)
def _epoch_order(epoch: int, num_examples: int, seed: int) -> NDArray[np.int64]:
    # Computed once per epoch: a million examples take 20 ms.
    return np.random.default_rng([seed, epoch]).permutation(num_examples)


def split_micro_batches(
    lengths: Sequence[int],
    *,
    micro_batch_size: int,
    max_tokens: int | None = None,
    rank: int,
    world_size: int,
) -> list[list[int]]:
    """Return the micro-batches of `rank`, as positions in a global batch of the given lengths.

    All ranks get the same number of micro-batches; some may be empty. Examples of similar length
    share a micro-batch, which reduces padding. `max_tokens` limits the positions of a micro-batch,
    including padding; a micro-batch with a single example may exceed it.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    chunks: list[list[int]] = []
    start = 0
    while start < len(by_length):
        longest = max(1, lengths[by_length[start]])
        capacity = micro_batch_size if max_tokens is None else max(1, max_tokens // longest)
        chunks.append(by_length[start : start + min(micro_batch_size, capacity)])
        start += len(chunks[-1])
    rounds = math.ceil(len(chunks) / world_size)
    chunks += [[] for _ in range(rounds * world_size - len(chunks))]
    return chunks[rank::world_size]


def split_packed_micro_batches(
    lengths: Sequence[int], *, max_tokens: int, rank: int, world_size: int
) -> list[list[int]]:
    """Return the micro-batches of `rank`, with at most `max_tokens` tokens each.

    All ranks get the same number of micro-batches: the smallest that respects the limit. The
    longest remaining example is assigned to the micro-batch with the fewest tokens. An example that
    exceeds the limit gets its own micro-batch.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    rounds = max(1, math.ceil(sum(lengths) / (max_tokens * world_size)))
    while True:
        emptiest = [(0, number) for number in range(rounds * world_size)]
        bins: list[list[int]] = [[] for _ in emptiest]
        for index in by_length:
            load, number = heapq.heappop(emptiest)
            bins[number].append(index)
            heapq.heappush(emptiest, (load + lengths[index], number))
        if all(load <= max_tokens or len(bins[number]) == 1 for load, number in emptiest):
            return bins[rank::world_size]
        rounds += 1


def collate(
    examples: Sequence[EncodedExample], weights: Sequence[NDArray[np.float32]], pad_token_id: int
) -> MicroBatch:
    """Return the padded micro-batch of `examples`; without examples, one padding position.

    A rank without examples must still run a forward pass, because ZeRO's collectives need every
    rank.

    Args:
        weights: the loss weight of each token of each example.
    """
    num_rows = max(1, len(examples))
    width = max((len(example.input_ids) for example in examples), default=1)
    input_ids_BT = torch.full((num_rows, width), pad_token_id, dtype=torch.long)
    targets_BT = torch.zeros((num_rows, width), dtype=torch.long)
    target_roles_BT = torch.full((num_rows, width), int(Role.PADDING), dtype=torch.long)
    target_weights_BT = torch.zeros((num_rows, width))
    for row, (example, token_weights) in enumerate(zip(examples, weights, strict=True)):
        length = len(example.input_ids)
        ids = torch.tensor(example.input_ids)
        input_ids_BT[row, :length] = ids
        targets_BT[row, : length - 1] = ids[1:]
        target_roles_BT[row, : length - 1] = torch.tensor(example.roles)[1:]
        target_weights_BT[row, : length - 1] = torch.tensor(token_weights)[1:]
    return MicroBatch(input_ids_BT, targets_BT, target_roles_BT, target_weights_BT)


def collate_packed(
    examples: Sequence[EncodedExample], weights: Sequence[NDArray[np.float32]], pad_token_id: int
) -> MicroBatch:
    """Return the packed micro-batch of `examples`; without examples, one padding position."""
    if not examples:
        return replace(collate([], [], pad_token_id), sequence_lengths=(1,))
    rows = [
        collate([example], [token_weights], pad_token_id)
        for example, token_weights in zip(examples, weights, strict=True)
    ]
    return MicroBatch(
        torch.cat([row.input_ids_BT for row in rows], dim=1),
        torch.cat([row.targets_BT for row in rows], dim=1),
        torch.cat([row.target_roles_BT for row in rows], dim=1),
        torch.cat([row.target_weights_BT for row in rows], dim=1),
        tuple(len(example.input_ids) for example in examples),
    )
