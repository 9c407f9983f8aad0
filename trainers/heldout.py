"""Compute the held-out loss during training, for completion tokens and for prompt tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainers.config import BatchConfig
from trainers.data.roles import COMPLETION_ROLES, PROMPT_ROLES, EncodedExample
from trainers.engine.zero import ZeroEngine
from trainers.foundation.errors import TrainingError
from trainers.loss_config import LossConfig
from trainers.step import forward, forward_inputs, local_micro_batches, mean_or_none
from trainers.token_weights import batch_weights

_ALL_TOKENS = LossConfig(prompt_loss_weight=1.0)


@dataclass(frozen=True, kw_only=True)
class HeldoutLoss:
    """Mean next-token losses in nats; None if there are no such tokens."""

    completion_loss: float | None
    prompt_loss: float | None


def measure_heldout_loss(
    engine: ZeroEngine,
    examples: Sequence[EncodedExample],
    *,
    batch: BatchConfig,
    max_length: int,
    pad_token_id: int,
) -> HeldoutLoss:
    """Return the losses of the current model, as defined by `evals.heldout`.

    Collective operation. Each loss is the sum of next-token losses over all tokens of one kind,
    divided by their number, without loss weights, label smoothing or dropout. Neither weights nor
    random states change.

    Raises:
        TrainingError: a loss is not finite.
    """
    weights = batch_weights(examples, _ALL_TOKENS)
    counts = weights.num_weighted
    device = engine.ranks.device
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    # ZeRO's collectives need the same number of micro-batches on every rank.
    micro_batches = local_micro_batches(examples, batch, max_length, engine.ranks)
    inputs = forward_inputs(
        examples, weights.of_examples, micro_batches, batch, pad_token_id, device
    )
    with engine.evaluating():
        for micro_batch in inputs:
            sums += torch.stack(forward(engine, micro_batch).role_loss_sums())
    completion, prompt = engine.ranks.sum(sums.tolist())
    if not math.isfinite(completion + prompt):
        raise TrainingError(
            f"the loss on held-out examples is not finite (sums: completion {completion}, prompt "
            f"{prompt}); reduce optimizer.learning_rate"
        )
    return HeldoutLoss(
        completion_loss=mean_or_none(completion, sum(counts[role] for role in COMPLETION_ROLES)),
        prompt_loss=mean_or_none(prompt, sum(counts[role] for role in PROMPT_ROLES)),
    )
