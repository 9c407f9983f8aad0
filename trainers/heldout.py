"""The held-out loss during training: of completion and of prompt tokens, whatever is trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainers.config import BatchConfig, LossConfig
from trainers.data.batches import count_targets
from trainers.data.roles import PROMPT_ROLES, Encoded, Role
from trainers.engine.zero import ZeroEngine
from trainers.foundation.errors import TrainingError
from trainers.step import deal_batch, forward, mean

_ALL_TOKENS = LossConfig(prompt_loss_weight=1.0)


@dataclass(frozen=True, kw_only=True)
class HeldoutLoss:
    """Mean next-token losses in nats; None for a side without tokens."""

    completion_loss: float | None
    prompt_loss: float | None


def measure_heldout_loss(
    engine: ZeroEngine,
    examples: Sequence[Encoded],
    *,
    batch: BatchConfig,
    max_length: int,
    pad_token_id: int,
) -> HeldoutLoss:
    """The losses that `evals.heldout` defines, of the model as it is now; a collective.

    Sums of next-token losses over all tokens of a side, divided by their number: no weight, no
    label smoothing, no dropout. Neither weights nor random states change.

    Raises:
        TrainingError: a loss is not finite.
    """
    counts = count_targets(examples)
    sums = torch.zeros(2, dtype=torch.float64)
    with engine.evaluating():
        # Every rank has equally many micro-batches, as ZeRO's collectives need.
        for members in deal_batch(examples, batch, max_length, engine.ranks):
            done = forward(
                engine,
                [examples[i] for i in members],
                loss=_ALL_TOKENS,
                packing=batch.packing,
                pad_token_id=pad_token_id,
            )
            sums += torch.stack(done.role_sums())
    completion, prompt = engine.ranks.sum(sums.tolist())
    if not math.isfinite(completion + prompt):
        raise TrainingError(
            f"the loss on held-out examples is not finite (sums: completion {completion}, prompt "
            f"{prompt}); try a lower learning rate"
        )
    return HeldoutLoss(
        completion_loss=mean(completion, counts[Role.COMPLETION]),
        prompt_loss=mean(prompt, sum(counts[role] for role in PROMPT_ROLES)),
    )
