"""QLoRA: the frozen weights of linear layers in 4 bits, by bitsandbytes.

Each block of 64 weights has a float scale and, for each weight, one of 16 levels (NF4). The scales
are quantized again. Computation is in the model's dtype.

Source: arXiv 2305.14314.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig, PreTrainedModel

from trainers.foundation.extras import require_package


def quantization_config(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the argument that makes transformers quantize linear layers while it loads them.

    Raises:
        InputError: bitsandbytes is not installed.
    """
    require_package("bitsandbytes", feature="lora.quantization", extra="qlora")
    make: Any = BitsAndBytesConfig
    config: BitsAndBytesConfig = make(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return config


def keep_quantized_layout(model: PreTrainedModel) -> None:
    """Forbid bitsandbytes to rearrange the 4-bit weights of `model`.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 rearranges them in the first evaluation, and later
    training steps then multiply in bfloat16. `dequantize_4bit` does not know that layout.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def full_weights(weights: dict[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a state dict of `model` with the values that its 4-bit weights represent.

    The values are those that training used, in the dtype of its computation.
    """
    full = dict(weights)
    for name, parameter in model.named_parameters():
        state: Any = getattr(parameter, "quant_state", None)
        if state is not None and name in full:
            from bitsandbytes.functional import dequantize_4bit

            full[name] = dequantize_4bit(parameter.data, state).cpu()
    return full


def mark_as_full(model: PreTrainedModel) -> None:
    """Let `save_pretrained` write full weights of a model that was loaded in 4 bits."""
    if getattr(model, "hf_quantizer", None) is None:
        return
    quantized: Any = model
    quantized.hf_quantizer = None
    quantized.is_quantized = False
    del quantized.config.quantization_config
