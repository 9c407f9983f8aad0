"""Low-rank updates of frozen layers (LoRA), by peft; merged into plain weights at the end.

Source: arXiv 2106.09685.
"""

from collections.abc import Mapping
from pathlib import Path

import peft
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainers.config import LoraConfig
from trainers.foundation.errors import InputError, Problem

# peft calls an adapter without a name so.
_ADAPTER = "default"
_DOWN, _UP = f".lora_A.{_ADAPTER}.weight", f".lora_B.{_ADAPTER}.weight"


def add_lora(model: PreTrainedModel, config: LoraConfig) -> None:
    """Put the factors beside the model's layers, in place, and freeze everything else.

    Raises:
        InputError: a target is not there, or is no linear layer inside the decoder.
    """
    try:
        peft.inject_adapter_in_model(_peft_config(config), model)
    except ValueError as error:
        # peft's first sentence names the target; its advice is not about our settings.
        raise _bad_targets(config, str(error).splitlines()[0].split(". ")[0]) from error
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        raise _bad_targets(config, "the output head is among them")
    if any("lora_embedding" in name for name, _ in model.named_parameters()):
        raise _bad_targets(config, "the embeddings are among them")


def merge_lora(
    weights: Mapping[str, Tensor], config: LoraConfig
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Plain weights from a state dict with factors, and each one's squared L2 move by them."""
    merged: dict[str, Tensor] = {}
    squared: dict[str, float] = {}
    scaling = config.alpha / config.rank
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        plain_name = name.replace(".base_layer.", ".")
        merged[plain_name] = weight
        if layer + _DOWN in weights:
            update = scaling * (weights[layer + _UP].float() @ weights[layer + _DOWN].float())
            merged[plain_name] = (weight.float() + update).to(weight.dtype)
            squared[plain_name] = float(update.double().square().sum())
    return merged, squared


def save_adapter(
    weights: Mapping[str, Tensor], config: LoraConfig, base_model: str, folder: Path
) -> None:
    """Write the factors alone, as `peft.PeftModel.from_pretrained` loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    factors = {
        f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}": tensor.contiguous()
        for name, tensor in weights.items()
        if ".lora_" in name
    }
    save_file(factors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    written = _peft_config(config)
    written.base_model_name_or_path = base_model
    written.save_pretrained(str(folder))


def _peft_config(config: LoraConfig) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=config.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )


def _bad_targets(config: LoraConfig, reason: str) -> InputError:
    targets = ", ".join(config.target_modules or ["all linear layers"])
    return InputError(
        Problem(
            message=f"lora.target_modules {targets} cannot be adapted: {reason}",
            fix="name linear layers of the decoder, such as q_proj and v_proj, or leave it out",
        )
    )
