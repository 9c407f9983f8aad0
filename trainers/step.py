"""Compute the gradient of one optimizer step: the weighted loss of a whole global batch."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.config import BatchConfig
from trainers.data.batches import (
    MicroBatch,
    collate,
    collate_packed,
    split_micro_batches,
    split_packed_micro_batches,
)
from trainers.data.roles import COMPLETION_ROLES, PROMPT_ROLES, EncodedExample
from trainers.engine.ranks import Ranks
from trainers.engine.zero import ZeroEngine
from trainers.loss_config import LossConfig
from trainers.token_weights import batch_weights


@dataclass(frozen=True, kw_only=True)
class BatchLoss:
    """Losses of a global batch, over all ranks.

    `loss` is the weighted sum divided by the denominator. The role losses are means in nats per
    token. A role loss is None if no token was computed, because all have weight 0.
    """

    loss: float
    completion_loss: float | None
    prompt_loss: float | None
    num_tokens: int
    num_weighted_tokens: int


def accumulate_gradient(
    engine: ZeroEngine,
    global_batch: Sequence[EncodedExample],
    *,
    loss: LossConfig,
    batch: BatchConfig,
    max_length: int,
    pad_token_id: int,
) -> BatchLoss:
    """Accumulate the gradient of the batch's loss in `engine`; all ranks pass the same batch.

    Weights and divisor are computed once from the global batch, which every rank knows. So the loss
    depends neither on the number of ranks nor on the micro-batches.
    """
    ranks = engine.ranks
    weights = batch_weights(global_batch, loss)
    micro_batches = local_micro_batches(global_batch, batch, max_length, ranks)
    # The sums stay on the device until all micro-batches are queued, so a GPU never waits for them.
    sums = torch.zeros(3, dtype=torch.float64, device=ranks.device)
    inputs = forward_inputs(
        global_batch, weights.of_examples, micro_batches, batch, pad_token_id, ranks.device
    )
    for index, micro_batch in enumerate(inputs):
        result = forward(engine, micro_batch)
        weighted_sum = result.weighted_sum
        engine.backward(weighted_sum / weights.divisor, is_last=index == len(micro_batches) - 1)
        sums += torch.stack([weighted_sum.detach().double(), *result.role_loss_sums()])
    weighted, completion, prompt = ranks.sum(sums.tolist())
    num_weighted = weights.num_weighted
    return BatchLoss(
        loss=weighted / weights.divisor,
        completion_loss=mean_or_none(
            completion, sum(num_weighted[role] for role in COMPLETION_ROLES)
        ),
        prompt_loss=mean_or_none(prompt, sum(num_weighted[role] for role in PROMPT_ROLES)),
        num_tokens=sum(len(example.input_ids) for example in global_batch),
        num_weighted_tokens=sum(num_weighted.values()),
    )


@dataclass(frozen=True)
class ForwardInputs:
    """The tensors of a micro-batch for one forward pass, in host memory or on a device.

    `selected_N` are the positions in the flattened (B * T) whose target has a weight above 0.
    `completion_M` and `prompt_M` are the indices, among the N, of the targets of each kind.
    """

    input_ids_BT: Tensor
    selected_N: Tensor
    targets_N: Tensor
    weights_N: Tensor
    completion_M: Tensor
    prompt_M: Tensor
    sequence_lengths: tuple[int, ...] | None

    @classmethod
    def of(cls, micro_batch: MicroBatch) -> "ForwardInputs":
        target_weights = micro_batch.target_weights_BT.flatten()
        selected_N = target_weights.nonzero().squeeze(1)
        roles_N = micro_batch.target_roles_BT.flatten()[selected_N]
        is_completion = torch.isin(roles_N, torch.tensor(COMPLETION_ROLES))
        return cls(
            input_ids_BT=micro_batch.input_ids_BT,
            selected_N=selected_N,
            targets_N=micro_batch.targets_BT.flatten()[selected_N],
            weights_N=target_weights[selected_N],
            completion_M=is_completion.nonzero().squeeze(1),
            prompt_M=(~is_completion).nonzero().squeeze(1),
            sequence_lengths=micro_batch.sequence_lengths,
        )

    def pinned(self) -> "ForwardInputs":
        """Return a copy in pinned host memory, from which a GPU reads without blocking the CPU."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device) -> "ForwardInputs":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, convert: Callable[[Tensor], Tensor]) -> "ForwardInputs":
        tensors: dict[str, Any] = {
            name: convert(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def forward_inputs(
    examples: Sequence[EncodedExample],
    weights: Sequence[NDArray[np.float32]],
    micro_batches: Sequence[Sequence[int]],
    batch: BatchConfig,
    pad_token_id: int,
    device: torch.device,
) -> Iterator[ForwardInputs]:
    """Yield the inputs of each micro-batch on `device`; a thread prepares the next one meanwhile.

    Args:
        weights: the loss weight of each token of each example.
        micro_batches: positions in `examples`; a micro-batch may be empty.
    """
    is_cuda = device.type == "cuda"
    if not micro_batches:
        return

    def prepare(members: Sequence[int]) -> ForwardInputs:
        inputs = ForwardInputs.of(
            (collate_packed if batch.packing else collate)(
                [examples[i] for i in members], [weights[i] for i in members], pad_token_id
            )
        )
        return inputs.pinned() if is_cuda else inputs

    # The current GPU belongs to a thread. Pinning memory for another GPU would occupy that one.
    initializer = (lambda: torch.cuda.set_device(device)) if is_cuda else None
    with ThreadPoolExecutor(1, "collate", initializer) as thread:
        prepared = thread.submit(prepare, micro_batches[0])
        for following in micro_batches[1:]:
            current, prepared = prepared.result(), thread.submit(prepare, following)
            yield current.to(device)
        yield prepared.result().to(device)


@dataclass(frozen=True)
class ForwardResult:
    """The weighted sum of a forward pass, and the loss of each of the N targets of `inputs`."""

    weighted_sum: Tensor
    losses_N: Tensor
    inputs: ForwardInputs

    def role_loss_sums(self) -> tuple[Tensor, Tensor]:
        """Return the sums of the unweighted completion and prompt losses, in float64."""
        losses_N = self.losses_N.double()
        completion = losses_N.index_select(0, self.inputs.completion_M).sum()
        return completion, losses_N.index_select(0, self.inputs.prompt_M).sum()


def forward(engine: ZeroEngine, inputs: ForwardInputs) -> ForwardResult:
    """Run one micro-batch, which may be empty, through the model; a collective operation."""
    weighted_sum, losses_N = engine.forward(
        inputs.input_ids_BT,
        inputs.selected_N,
        inputs.targets_N,
        inputs.weights_N,
        sequence_lengths=inputs.sequence_lengths,
    )
    return ForwardResult(weighted_sum, losses_N, inputs)


def local_micro_batches(
    global_batch: Sequence[EncodedExample], batch: BatchConfig, max_length: int, ranks: Ranks
) -> list[list[int]]:
    """Return this rank's micro-batches as positions in the batch; all ranks get the same number."""
    lengths = [len(example.input_ids) for example in global_batch]
    if batch.packing:
        return split_packed_micro_batches(
            lengths,
            max_tokens=batch.max_tokens or batch.micro_batch_size * max_length,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
    return split_micro_batches(
        lengths,
        micro_batch_size=batch.micro_batch_size,
        max_tokens=batch.max_tokens,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def mean_or_none(total: float, count: int) -> float | None:
    """Return the mean of `count` losses; None if `count` is 0."""
    return total / count if count else None
