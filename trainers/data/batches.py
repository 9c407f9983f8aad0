"""Which examples make up a step, how they are dealt to ranks, and how they become tensors."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trainers.config import ScheduleConfig
from trainers.data.roles import Encoded, Role


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of one rank; every tensor is (B, T).

    Padded: a row for each example, filled up on the right. Packed: one row in which the examples
    stand back to back, with their `sequence_lengths`.

    `targets_BT[b, t]` is the token after position t, `target_roles_BT` its role (`Role.PADDING`
    where there is none).
    """

    input_ids_BT: Tensor
    targets_BT: Tensor
    target_roles_BT: Tensor
    sequence_lengths: tuple[int, ...] | None = None


def num_steps(num_examples: int, global_batch_size: int, schedule: ScheduleConfig) -> int:
    """Optimizer steps of a run. A last window of an epoch with fewer examples is a step too."""
    if schedule.steps is not None:
        return schedule.steps
    assert schedule.epochs is not None
    steps_per_epoch = math.ceil(num_examples / global_batch_size)
    return max(1, math.ceil(schedule.epochs * steps_per_epoch))


def step_window(step: int, num_examples: int, global_batch_size: int, seed: int) -> list[int]:
    """Indices of the examples of optimizer step `step` (from 0), the same on every rank.

    Each epoch is a fresh permutation, cut into windows; the last one may be smaller.
    """
    steps_per_epoch = math.ceil(num_examples / global_batch_size)
    epoch, window = divmod(step, steps_per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    start = window * global_batch_size
    return [int(index) for index in order[start : start + global_batch_size]]


def deal(
    lengths: Sequence[int],
    *,
    micro_batch_size: int,
    max_tokens: int | None = None,
    rank: int,
    world_size: int,
) -> list[list[int]]:
    """The micro-batches of `rank`, as positions in a global batch of examples of these lengths.

    Each rank gets equally many, empty ones where examples run out. Examples of similar length
    go together, so that little is padded. With `max_tokens`, a micro-batch has fewer examples
    where it would hold more positions, padding included; never fewer than one.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    chunks: list[list[int]] = []
    start = 0
    while start < len(by_length):
        longest = max(1, lengths[by_length[start]])
        fitting = micro_batch_size if max_tokens is None else max(1, max_tokens // longest)
        chunks.append(by_length[start : start + min(micro_batch_size, fitting)])
        start += len(chunks[-1])
    rounds = math.ceil(len(chunks) / world_size)
    chunks += [[] for _ in range(rounds * world_size - len(chunks))]
    return chunks[rank::world_size]


def deal_packed(
    lengths: Sequence[int], *, max_tokens: int, rank: int, world_size: int
) -> list[list[int]]:
    """The micro-batches of `rank` with at most `max_tokens` tokens each, as `deal` gives them.

    Equally many for each rank, and filled evenly: the longest example left goes where there is
    least, over the fewest micro-batches for which that stays within the limit. An example above
    the limit has a micro-batch of its own.
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


def collate(examples: Sequence[Encoded], pad_token_id: int) -> MicroBatch:
    """The micro-batch of `examples`; of none, a single padded position that counts for nothing.

    A rank without examples still runs its forward pass: ZeRO's collectives need every rank.
    """
    num_rows = max(1, len(examples))
    width = max((len(example.input_ids) for example in examples), default=1)
    input_ids_BT = torch.full((num_rows, width), pad_token_id, dtype=torch.long)
    targets_BT = torch.zeros((num_rows, width), dtype=torch.long)
    target_roles_BT = torch.full((num_rows, width), int(Role.PADDING), dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids = torch.tensor(example.input_ids)
        input_ids_BT[row, :length] = ids
        targets_BT[row, : length - 1] = ids[1:]
        target_roles_BT[row, : length - 1] = torch.tensor(example.roles)[1:]
    return MicroBatch(input_ids_BT, targets_BT, target_roles_BT)


def collate_packed(examples: Sequence[Encoded], pad_token_id: int) -> MicroBatch:
    """The micro-batch of `examples` back to back; of none, a single position as in `collate`."""
    if not examples:
        return replace(collate([], pad_token_id), sequence_lengths=(1,))
    rows = [collate([example], pad_token_id) for example in examples]
    return MicroBatch(
        torch.cat([row.input_ids_BT for row in rows], dim=1),
        torch.cat([row.targets_BT for row in rows], dim=1),
        torch.cat([row.target_roles_BT for row in rows], dim=1),
        tuple(len(example.input_ids) for example in examples),
    )


def count_targets(examples: Sequence[Encoded]) -> dict[Role, int]:
    """Targets by role: every token but the first of each example."""
    counts = np.zeros(len(Role), dtype=np.int64)
    for example in examples:
        counts += np.bincount(example.roles[1:], minlength=len(Role))
    return {role: int(counts[role]) for role in Role}
