"""The weighted sum of next-token losses.

Logits are computed only where a weight is not 0.

Shape legend: B examples, T positions, N selected positions, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainers.models.logit_map import PLAIN_LOGITS, LogitMap
from trainers.models.packed_attention import hidden_states

# Limits the logits of one chunk. Larger chunks were no faster on a CPU (64 MiB is about 340
# positions of a 49k vocabulary in float32). On a GPU, a chunk has at least 2,048 positions, and its
# float32 logits may take 1/40 of the memory (2 GiB of 80).
CHUNK_BYTES = 64 * 2**20
GPU_CHUNK_ROWS = 2048
GPU_CHUNK_SHARE = 40


def _chunk_rows(row_bytes: int, device: torch.device) -> int:
    """Return the number of positions whose logits are computed together."""
    if device.type != "cuda":
        return max(1, CHUNK_BYTES // row_bytes)
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(GPU_CHUNK_ROWS, memory // GPU_CHUNK_SHARE // row_bytes)


@cache
def adds_bfloat16_products_to_float32(device: torch.device) -> bool:
    """Return whether a matrix product of bfloat16 factors can be added to a float32 matrix."""
    if device.type != "cuda":
        return False
    sums = torch.ones(16, 16, device=device)
    factor = torch.full((16, 16), 0.5, dtype=torch.bfloat16, device=device)
    try:
        torch.addmm(sums, factor, factor, out_dtype=torch.float32, out=sums)
    except (RuntimeError, TypeError):  # an older torch or GPU
        return False
    return bool((sums == 5).all())


def _add_product(sums_VD: Tensor, left_NV: Tensor, right_ND: Tensor) -> None:
    """Add left^T right to `sums_VD`, which may be float32 with bfloat16 factors."""
    if sums_VD.dtype == left_NV.dtype:
        sums_VD.addmm_(left_NV.T, right_ND)
    elif adds_bfloat16_products_to_float32(sums_VD.device):
        # The matrix product itself accumulates: no bfloat16 copy of V x D is rounded and added.
        torch.addmm(sums_VD, left_NV.T, right_ND, out_dtype=torch.float32, out=sums_VD)
    else:
        sums_VD += (left_NV.T @ right_ND).to(sums_VD.dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """sum_n w_n * cross_entropy(f(hidden_n W^T), target_n), one chunk of logits at a time.

    f is the logit map: a scale or a soft cap.

    The forward pass also computes the gradients while a chunk's logits exist. This takes three
    matrix products; recomputing the logits in the backward pass would take four.
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
        logit_map: LogitMap,
    ) -> tuple[Tensor, Tensor]:
        acc_dtype = torch.promote_types(hidden_ND.dtype, torch.float32)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        num_positions, vocabulary = hidden_ND.shape[0], weight_VD.shape[0]
        losses_N = torch.empty(num_positions, dtype=acc_dtype, device=hidden_ND.device)
        weighted_sum = torch.zeros((), dtype=acc_dtype, device=hidden_ND.device)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=acc_dtype) if needs_weight else None
        grad_bias = None
        if needs_bias and bias_V is not None:
            grad_bias = torch.zeros_like(bias_V, dtype=acc_dtype)
        chunk = _chunk_rows(vocabulary * acc_dtype.itemsize, hidden_ND.device)
        for start in range(0, num_positions, chunk):
            rows = slice(start, min(start + chunk, num_positions))
            logits = nn.functional.linear(hidden_ND[rows], weight_VD, bias_V).to(acc_dtype)
            slope = logit_map.apply_(logits)
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
            # softmax - target distribution, computed in place of the logits
            grad_logits = logits.sub_(log_norm).exp_()
            # Not scatter_add_, whose order of additions is not fixed on CUDA.
            at_target = grad_logits.gather(1, targets).add_(label_smoothing - 1)
            grad_logits.scatter_(1, targets, at_target)
            if label_smoothing > 0:
                grad_logits.sub_(label_smoothing / vocabulary)
            grad_logits.mul_(weights_N[rows, None])
            if slope is not None:
                grad_logits.mul_(slope)
            grad_logits_cast = grad_logits.to(hidden_ND.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits_cast, weight_VD, out=grad_hidden[rows])
            if grad_weight is not None:
                _add_product(grad_weight, grad_logits_cast, hidden_ND[rows])
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
        # The saved gradients are used only once, so they are scaled in place.
        return (
            None if grad_hidden is None else _scale(grad_hidden, scale),
            None if grad_weight is None else grad_weight.mul_(scale).to(ctx.weight_dtype),
            None if grad_bias is None else grad_bias.mul_(scale).to(ctx.weight_dtype),
            None,
            None,
            None,
            None,
        )


def _scale(gradient: Tensor, scale: Tensor) -> Tensor:
    """Return `gradient` times the float32 scalar `scale`, in place if it is float32."""
    if gradient.dtype == scale.dtype:
        return gradient.mul_(scale)
    # A scale in bfloat16 would change the whole gradient by one factor of up to 0.4%.
    return (gradient.to(scale.dtype) * scale).to(gradient.dtype)


def chunked_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    weights_N: Tensor,
    label_smoothing: float = 0.0,
    logit_map: LogitMap = PLAIN_LOGITS,
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of next-token losses, and each loss in nats without smoothing.

    The full logits tensor is never created. Label smoothing is that of
    `torch.nn.functional.cross_entropy`: the target distribution is 1 - label_smoothing on the
    target, plus label_smoothing spread over the whole vocabulary.

    Returns:
        A scalar, and a detached tensor (N,). Both are float32, or float64 for float64 hidden
            states.
    """
    if not torch.is_grad_enabled():
        # ctx.needs_input_grad is true for parameters even under no_grad.
        weight_VD = weight_VD.detach()
        bias_V = None if bias_V is None else bias_V.detach()
    weighted_sum, losses_N = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, targets_N, weights_N, label_smoothing, logit_map
    )
    return weighted_sum, losses_N


# Prefix of the model's parameter names in `WeightedPromptLM`.
MODEL_PREFIX = "model."


class WeightedPromptLM(nn.Module):
    """A causal language model that returns its weighted loss instead of its logits.

    The head is a separate module that owns the output matrix. So ZeRO 3 gathers the matrix once for
    all chunks and releases it afterwards.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        label_smoothing: float = 0.0,
        logit_map: LogitMap = PLAIN_LOGITS,
    ) -> None:
        """
        Args:
            logit_map: of the model (`trainers.models.loading.logit_map`).
        """
        super().__init__()
        self.model = model
        output_embeddings = model.get_output_embeddings()
        assert isinstance(output_embeddings, nn.Linear)
        self.head = _LossHead(output_embeddings, label_smoothing, logit_map)

    def forward(
        self,
        input_ids_BT: Tensor,
        selected_N: Tensor,
        targets_N: Tensor,
        weights_N: Tensor,
        sequence_lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted sum, and the loss in nats of each selected position.

        Args:
            selected_N: positions in the flattened (B * T) whose target has a weight above 0.
            targets_N: the target token of each selected position.
            weights_N: the weight of each target.
            sequence_lengths: lengths of the examples in a packed row; None for padded rows.
        """
        hidden_BTD = hidden_states(self.model, input_ids_BT, sequence_lengths)
        weighted_sum, losses_N = self.head(
            hidden_BTD.flatten(0, 1).index_select(0, selected_N), targets_N, weights_N
        )
        return weighted_sum, losses_N


class _LossHead(nn.Module):
    def __init__(
        self, output_embeddings: nn.Linear, label_smoothing: float, logit_map: LogitMap
    ) -> None:
        super().__init__()
        self.weight = output_embeddings.weight
        self.bias = output_embeddings.bias
        self._label_smoothing = label_smoothing
        self._logit_map = logit_map

    def forward(
        self, hidden_ND: Tensor, targets_N: Tensor, weights_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        return chunked_cross_entropy(
            hidden_ND,
            self.weight,
            self.bias,
            targets_N,
            weights_N,
            self._label_smoothing,
            self._logit_map,
        )
