"""The weighted prompt loss: exact over the whole global batch, logits only where a token counts.

Shape legend: B examples, T positions, N selected positions, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainers.config import LossConfig
from trainers.data.roles import PROMPT_ROLES, Role
from trainers.foundation.errors import InputError, Problem
from trainers.models.packed_attention import hidden_states

# Bounds the logits of one chunk. Larger chunks were no faster on CPU (64 MiB is about 340
# positions of a 49k vocabulary in float32).
CHUNK_BYTES = 64 * 2**20


def role_weights(config: LossConfig) -> dict[Role, float]:
    """The loss weight of a token by its role: 1 for completion, the PLW for prompt.

    `config.role_weights` replaces the weights of single roles.
    """
    usual = {
        Role.PADDING: 0.0,
        **dict.fromkeys(PROMPT_ROLES, config.prompt_loss_weight),
        Role.COMPLETION: 1.0,
    }
    own = {Role[name.upper()]: weight for name, weight in config.role_weights}
    return usual | {role: weight for role, weight in own.items() if weight is not None}


def token_weights(target_roles: Tensor, config: LossConfig) -> Tensor:
    """The loss weight of each target, float32 of the shape of `target_roles`."""
    weights = role_weights(config)
    table = torch.tensor([weights[role] for role in Role], dtype=torch.float32)
    return table[target_roles]


def denominator(target_counts: dict[Role, int], config: LossConfig) -> float:
    """What the weighted sum is divided by, given the targets by role in the whole global batch.

    Modes: `weights` sums w_t; `nonzero` counts w_t > 0; `completion` counts completion tokens;
    `tokens` counts all tokens but padding. A first token has no context and is never a target.
    Of a batch that has nothing to divide by it is 1: the loss is a sum over nothing, 0.
    """
    weights = role_weights(config)
    counts = {role: count for role, count in target_counts.items() if role != Role.PADDING}
    match config.normalization:
        case "weights":
            divisor = sum(weights[role] * count for role, count in counts.items())
        case "nonzero":
            divisor = sum(count for role, count in counts.items() if weights[role] > 0)
        case "completion":
            divisor = counts.get(Role.COMPLETION, 0)
        case "tokens":
            divisor = sum(counts.values())
    return float(divisor) or 1.0


def check_counted(target_counts: dict[Role, int], config: LossConfig) -> None:
    """Raise InputError if not one of the targets, given by role, has a weight above 0."""
    weights = role_weights(config)
    if any(count and weights[role] > 0 for role, count in target_counts.items()):
        return
    found = ", ".join(role.name.lower() for role, count in target_counts.items() if count)
    raise InputError(
        Problem(
            message=f"no token of the training data counts: all are of roles ({found}) of weight 0",
            fix="set loss.prompt_loss_weight or one of loss.role_weights above 0",
        )
    )


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum_n w_n * cross_entropy(hidden_n W^T, target_n), one chunk of logits at a time.

    The gradients are made in the forward pass, while a chunk's logits are at hand: three matrix
    products in all instead of the four that recomputing the logits in backward would take.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        weights_N: Tensor,
        label_smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        num_positions, vocabulary = hidden_ND.shape[0], weight_VD.shape[0]
        losses_N = torch.empty(num_positions, dtype=wide, device=hidden_ND.device)
        weighted_sum = torch.zeros((), dtype=wide, device=hidden_ND.device)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=wide) if needs_weight else None
        grad_bias = None
        if needs_bias and bias_V is not None:
            grad_bias = torch.zeros_like(bias_V, dtype=wide)
        chunk = max(1, CHUNK_BYTES // (vocabulary * wide.itemsize))
        for start in range(0, num_positions, chunk):
            rows = slice(start, min(start + chunk, num_positions))
            logits = nn.functional.linear(hidden_ND[rows], weight_VD, bias_V).to(wide)
            targets = targets_N[rows, None]
            log_norm = torch.logsumexp(logits, dim=1, keepdim=True)
            losses_N[rows] = (log_norm - logits.gather(1, targets)).squeeze(1)
            smoothed = losses_N[rows]
            if label_smoothing > 0:
                uniform = log_norm.squeeze(1) - logits.mean(dim=1)
                smoothed = torch.lerp(smoothed, uniform, label_smoothing)
            weighted_sum += (smoothed * weights_N[rows]).sum()
            if not (needs_hidden or needs_weight or needs_bias):
                continue
            # softmax - target distribution, in place: the chunk's logits are not needed again.
            grad_logits = logits.sub_(log_norm).exp_()
            on_target = torch.full_like(targets, label_smoothing - 1, dtype=wide)
            grad_logits.scatter_add_(1, targets, on_target)
            if label_smoothing > 0:
                grad_logits.sub_(label_smoothing / vocabulary)
            grad_logits.mul_(weights_N[rows, None])
            narrow = grad_logits.to(hidden_ND.dtype)
            if grad_hidden is not None:
                torch.mm(narrow, weight_VD, out=grad_hidden[rows])
            if grad_weight is not None:
                if wide == hidden_ND.dtype:
                    grad_weight.addmm_(narrow.T, hidden_ND[rows])
                else:
                    grad_weight += (narrow.T @ hidden_ND[rows]).to(wide)
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.weight_dtype = weight_VD.dtype
        ctx.mark_non_differentiable(losses_N)
        return weighted_sum, losses_N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        # The saved gradients are used once, so they are scaled in place.
        return (
            None if grad_hidden is None else grad_hidden.mul_(scale.to(grad_hidden.dtype)),
            None if grad_weight is None else grad_weight.mul_(scale).to(ctx.weight_dtype),
            None if grad_bias is None else grad_bias.mul_(scale).to(ctx.weight_dtype),
            None,
            None,
            None,
        )


def chunked_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    weights_N: Tensor,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The weighted sum of next-token losses and, detached, each loss in nats, never smoothed.

    Label smoothing is that of `torch.nn.functional.cross_entropy`: the target distribution is
    1 - label_smoothing on the target and label_smoothing spread over the whole vocabulary.

    Returns:
        A scalar and (N,), both float32, or float64 for float64 hidden states. The tensor of all
        logits never exists.
    """
    if not torch.is_grad_enabled():
        # Otherwise torch asks for the gradient of every parameter all the same.
        weight_VD = weight_VD.detach()
        bias_V = None if bias_V is None else bias_V.detach()
    weighted_sum, losses_N = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, targets_N, weights_N, label_smoothing
    )
    return weighted_sum, losses_N


# What stands before the model's own parameter names in those of `WeightedPromptLM`.
MODEL_PREFIX = "model."


class WeightedPromptLM(nn.Module):
    """A causal language model that returns its weighted loss instead of its logits.

    The head is a module of its own that owns the output matrix, so that ZeRO 3 gathers it for
    all chunks at once and lets it go afterwards.
    """

    def __init__(self, model: PreTrainedModel, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model = model
        output_embeddings = model.get_output_embeddings()
        assert isinstance(output_embeddings, nn.Linear)
        self.head = _LossHead(output_embeddings, label_smoothing)

    def forward(
        self,
        input_ids_BT: Tensor,
        selected_N: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        sequence_lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum, and the loss in nats of each of the selected positions.

        Args:
            selected_N: positions in the flattened (B * T) whose prediction counts.
            targets_N: the token that each of them is to predict; `weights_N` its weight.
            sequence_lengths: of the examples in a packed row; None for padded rows.
        """
        hidden_BTD = hidden_states(self.model, input_ids_BT, sequence_lengths)
        weighted_sum, losses_N = self.head(
            hidden_BTD.flatten(0, 1).index_select(0, selected_N), targets_N, weights_N
        )
        return weighted_sum, losses_N


class _LossHead(nn.Module):
    def __init__(self, output_embeddings: nn.Linear, label_smoothing: float) -> None:
        super().__init__()
        self.weight = output_embeddings.weight
        self.bias = output_embeddings.bias
        self._label_smoothing = label_smoothing

    def forward(
        self, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        return chunked_cross_entropy(
            hidden_ND, self.weight, self.bias, targets_N, weights_N, self._label_smoothing
        )
