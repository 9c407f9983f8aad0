"""Reference implementations for tests: single sequences, all logits, float64, pure Python."""

import copy
import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel


def token_losses(model: PreTrainedModel, input_ids: Sequence[int]) -> list[float]:
    """Return the loss of each token in nats; 0 for the first, which has no prediction."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        logits_TV = exact(input_ids=torch.tensor([list(input_ids)])).logits[0].tolist()
    losses = [0.0]
    for row, target in zip(logits_TV, input_ids[1:], strict=False):
        greatest = max(row)
        log_sum = greatest + math.log(sum(math.exp(logit - greatest) for logit in row))
        losses.append(log_sum - row[target])
    return losses


def choice_log_likelihood(
    model: PreTrainedModel, prompt: Sequence[int], choice: Sequence[int]
) -> float:
    """Return ln p(choice | prompt)."""
    return -sum(token_losses(model, [*prompt, *choice])[len(prompt) :])
