"""Performance of a step: model FLOP utilisation (MFU), tokens per second and GPU, peak memory."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from trainers.engine.ranks import Ranks
from trainers.engine.sharding import full_shape
from trainers.models.layer_configs import attention_width, layer_configs

# Dense bfloat16 FLOP per second of one GPU, without sparsity. Source: NVIDIA's data sheets.
# Earlier patterns take precedence.
_PEAK_BFLOAT16_FLOPS = {
    r"B200": 2250e12,
    r"GH200|H200": 989e12,
    r"H100.*NVL": 835e12,
    r"H100.*PCIe": 756e12,
    r"H100": 989e12,
    r"A100": 312e12,
    r"L40S": 362e12,
    r"L4\b": 121e12,
    r"A10\b": 125e12,
    r"RTX 4090": 165e12,
}


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """Return the device's dense FLOP per second in `dtype`; None if unknown, as for a CPU."""
    if dtype != torch.bfloat16:
        return None
    return next(
        (peak for name, peak in _PEAK_BFLOAT16_FLOPS.items() if re.search(name, device_name)), None
    )


@dataclass(frozen=True, kw_only=True)
class ModelFlops:
    """The floating-point operations that a training step needs, by the shape of the model.

    `attention_width` maps the window of layers (None: all earlier tokens) to the sum of
    heads x head size over these layers. Trained weights take three matrix products: one in the
    forward pass, two in the backward pass. Frozen ones (LoRA) take two. A multiplication and an
    addition are two operations.
    """

    matmul_parameters: int
    head_parameters: int
    attention_width: Mapping[int | None, int]
    products: int = 3

    def of_step(self, lengths: Sequence[int], num_logits: int) -> float:
        """Return the FLOP of a step on examples of `lengths` tokens, with `num_logits` targets.

        Source: arXiv 2204.02311 (PaLM), appendix B: 6 N + 12 L H Q T per token. Deviations: causal
        attention counts only the pairs of positions that see each other, within the window if there
        is one; the output matrix counts only at targets with a weight above 0, where it is used;
        embeddings, norms and recomputed activations do not count.
        """
        matrices = self.matmul_parameters * sum(lengths) + self.head_parameters * num_logits
        attention = sum(
            width * sum(_visible_pairs(length, window) for length in lengths)
            for window, width in self.attention_width.items()
        )
        # Attention has no weights, but two products, both of whose factors have gradients.
        return 2.0 * self.products * matrices + 12.0 * attention


def _visible_pairs(length: int, window: int | None) -> int:
    """Return the number of pairs of a position with itself or an earlier one in its window."""
    seen = length if window is None else min(window, length)
    return seen * (seen + 1) // 2 + (length - seen) * seen


def model_flops(model: PreTrainedModel, *, is_lora: bool = False) -> ModelFlops | None:
    """Return the FLOP of a model that may be partitioned, before LoRA factors are added.

    None for a mixture of experts, of whose weights a token uses only some, and for a model without
    the usual settings of attention.
    """
    config = model.config.get_text_config()
    layers = layer_configs(config)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    has_experts = any(getattr(layer, name, None) for layer in layers for name in names)
    has_heads = all(getattr(layer, "num_attention_heads", None) for layer in layers)
    if not layers or has_experts or not has_heads:
        return None
    output = model.get_output_embeddings()
    excluded = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) or module is output
    }
    shapes = [full_shape(p) for p in model.parameters() if id(p) not in excluded]
    types = getattr(config, "layer_types", None) or [
        "sliding_attention" if getattr(layer, "sliding_window", None) else "full_attention"
        for layer in layers
    ]
    width: dict[int | None, int] = {}
    for kind, layer in zip(types, layers, strict=True):
        if kind in ("full_attention", "sliding_attention"):
            window = layer.sliding_window if kind == "sliding_attention" else None
            width[window] = width.get(window, 0) + attention_width(layer)
    rows, columns = full_shape(output.weight)
    return ModelFlops(
        matmul_parameters=sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2),
        head_parameters=rows * columns,
        attention_width=width,
        products=2 if is_lora else 3,
    )


def reset_peak_memory(device: torch.device) -> None:
    """Start the measurement of this process's peak memory again."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Linux: 5 resets VmHWM.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the peak since the reset: of allocated GPU memory, or of resident memory on Linux."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Performance of a step; None where the device or the model has no such value."""

    mfu: float | None
    tokens_per_second_per_gpu: float | None
    peak_memory_bytes: int | None


def measure_performance(
    flops: ModelFlops | None,
    ranks: Ranks,
    dtype: torch.dtype,
    *,
    lengths: Sequence[int],
    num_logits: int,
    seconds: float,
) -> Performance:
    """Return the performance of a step of `seconds`; a collective operation.

    `peak_memory_bytes` is that of the rank with the highest peak.
    """
    memory = peak_memory_bytes(ranks.device)
    most = ranks.max(-1.0 if memory is None else float(memory))
    peak = peak_flops(ranks.device_name, dtype)
    mfu = None
    if flops is not None and peak is not None:
        mfu = flops.of_step(lengths, num_logits) / (seconds * peak * ranks.world_size)
    is_cuda = ranks.device.type == "cuda"
    speed = sum(lengths) / seconds / ranks.world_size
    return Performance(
        mfu=mfu,
        tokens_per_second_per_gpu=speed if is_cuda else None,
        peak_memory_bytes=None if most < 0 else int(most),
    )
