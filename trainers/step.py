"""The gradient of one optimizer step: the weighted loss of a whole global batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainers.batches import collate, collate_packed, count_targets, deal, deal_packed
from trainers.config import BatchConfig, LossConfig
from trainers.loss import denominator, role_weights, token_weights
from trainers.ranks import Ranks
from trainers.roles import PROMPT_ROLES, Encoded, Role
from trainers.zero import ZeroEngine


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
    micro_batches = _micro_batches(global_batch, batch, max_length, ranks)
    sums = torch.zeros(3, dtype=torch.float64)
    for index, members in enumerate(micro_batches):
        make = collate_packed if batch.packing else collate
        micro_batch = make([global_batch[i] for i in members], pad_token_id)
        weights = token_weights(micro_batch.target_roles_BT.flatten(), loss)
        selected_N = weights.nonzero().squeeze(1)
        weighted_sum, losses_N = engine.forward(
            micro_batch.input_ids_BT.to(ranks.device),
            selected_N.to(ranks.device),
            micro_batch.targets_BT.flatten()[selected_N].to(ranks.device),
            weights[selected_N].to(ranks.device),
            sequence_lengths=micro_batch.sequence_lengths,
        )
        engine.backward(weighted_sum / divisor, is_last=index == len(micro_batches) - 1)
        losses_N = losses_N.double().cpu()
        is_completion = micro_batch.target_roles_BT.flatten()[selected_N] == Role.COMPLETION
        sums[0] += weighted_sum.detach().double().cpu()
        sums[1] += losses_N[is_completion].sum()
        sums[2] += losses_N[~is_completion].sum()
    weighted, completion, prompt = ranks.sum(sums.tolist())
    weight_of = role_weights(loss)
    num_computed = {role: counts[role] if weight_of[role] > 0 else 0 for role in Role}
    return BatchLoss(
        loss=weighted / divisor,
        completion_loss=_mean(completion, num_computed[Role.COMPLETION]),
        prompt_loss=_mean(prompt, sum(num_computed[role] for role in PROMPT_ROLES)),
        num_tokens=sum(len(example.input_ids) for example in global_batch),
    )


def _micro_batches(
    global_batch: Sequence[Encoded], batch: BatchConfig, max_length: int, ranks: Ranks
) -> list[list[int]]:
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


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
