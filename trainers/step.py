"""The gradient of one optimizer step: the weighted loss of a whole global batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.config import BatchConfig, LossConfig
from trainers.data.batches import collate, collate_packed, count_targets, deal, deal_packed
from trainers.data.roles import PROMPT_ROLES, Encoded, Role
from trainers.engine.ranks import Ranks
from trainers.engine.zero import ZeroEngine
from trainers.loss import denominator, role_weights, token_weights


@dataclass(frozen=True, kw_only=True)
class BatchLoss:
    """Losses of a global batch, summed over all ranks.

    `loss` is the weighted sum over its divisor. The role losses are means in nats per token;
    None where no token of them was computed, as none of a role with weight 0 is.
    """

    loss: float
    completion_loss: float | None
    prompt_loss: float | None
    num_tokens: int


def accumulate_gradient(
    engine: ZeroEngine,
    global_batch: Sequence[Encoded],
    *,
    loss: LossConfig,
    batch: BatchConfig,
    max_length: int,
    pad_token_id: int,
) -> BatchLoss:
    """Put the gradient of the batch's loss into `engine`; every rank gives the same batch.

    The divisor is computed once from the whole batch, which every rank knows, so neither the
    dealing to ranks nor the cut into micro-batches can change the loss.
    """
    ranks = engine.ranks
    counts = count_targets(global_batch)
    divisor = denominator(counts, loss)
    micro_batches = deal_batch(global_batch, batch, max_length, ranks)
    sums = torch.zeros(3, dtype=torch.float64)
    for index, members in enumerate(micro_batches):
        done = forward(
            engine,
            [global_batch[i] for i in members],
            loss=loss,
            packing=batch.packing,
            pad_token_id=pad_token_id,
        )
        weighted_sum = done.weighted_sum
        engine.backward(weighted_sum / divisor, is_last=index == len(micro_batches) - 1)
        sums += torch.stack([weighted_sum.detach().double().cpu(), *done.role_sums()])
    weighted, completion, prompt = ranks.sum(sums.tolist())
    weight_of = role_weights(loss)
    num_computed = {role: counts[role] if weight_of[role] > 0 else 0 for role in Role}
    return BatchLoss(
        loss=weighted / divisor,
        completion_loss=mean(completion, num_computed[Role.COMPLETION]),
        prompt_loss=mean(prompt, sum(num_computed[role] for role in PROMPT_ROLES)),
        num_tokens=sum(len(example.input_ids) for example in global_batch),
    )


@dataclass(frozen=True)
class Pass:
    """One forward pass of one rank: the weighted sum, and the loss and role of each target.

    N are the targets whose weight is above 0.
    """

    weighted_sum: Tensor
    losses_N: Tensor
    roles_N: Tensor

    def role_sums(self) -> tuple[Tensor, Tensor]:
        """The unweighted losses of completion and of prompt tokens, summed in float64."""
        losses_N = self.losses_N.double().cpu()
        is_completion = self.roles_N == Role.COMPLETION
        return losses_N[is_completion].sum(), losses_N[~is_completion].sum()


def forward(
    engine: ZeroEngine,
    examples: Sequence[Encoded],
    *,
    loss: LossConfig,
    packing: bool,
    pad_token_id: int,
) -> Pass:
    """Run one micro-batch, an empty one too, through the model; every rank does so at once."""
    device = engine.ranks.device
    micro_batch = (collate_packed if packing else collate)(examples, pad_token_id)
    roles = micro_batch.target_roles_BT.flatten()
    weights = token_weights(roles, loss)
    selected_N = weights.nonzero().squeeze(1)
    weighted_sum, losses_N = engine.forward(
        micro_batch.input_ids_BT.to(device),
        selected_N.to(device),
        micro_batch.targets_BT.flatten()[selected_N].to(device),
        weights[selected_N].to(device),
        sequence_lengths=micro_batch.sequence_lengths,
    )
    return Pass(weighted_sum, losses_N, roles[selected_N])


def deal_batch(
    global_batch: Sequence[Encoded], batch: BatchConfig, max_length: int, ranks: Ranks
) -> list[list[int]]:
    """This rank's micro-batches, as positions in the batch; equally many for every rank."""
    lengths = [len(example.input_ids) for example in global_batch]
    if batch.packing:
        return deal_packed(
            lengths,
            max_tokens=batch.max_tokens or batch.micro_batch_size * max_length,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
    return deal(
        lengths,
        micro_batch_size=batch.micro_batch_size,
        max_tokens=batch.max_tokens,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def mean(total: float, count: int) -> float | None:
    """The mean of `count` losses; None of none."""
    return total / count if count else None
