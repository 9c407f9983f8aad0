"""LoRA adapters on frozen layers, implemented by peft and merged into the weights at the end.

The modules of `lora.modules_to_save` are trained themselves. peft would train a copy of each; here
the model's own weights are trained, so tied weights stay tied and no memory is used twice.

Source: arXiv 2106.09685.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainers.config import LoraConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import apply_folder_mode

# peft's default name of an adapter
_ADAPTER = "default"
_DOWN, _UP = f".lora_A.{_ADAPTER}.weight", f".lora_B.{_ADAPTER}.weight"


def add_lora(model: PreTrainedModel, config: LoraConfig) -> None:
    """Add LoRA factors to the model's layers, in place, and freeze all other parameters.

    The parameters of `modules_to_save` are not frozen.

    Raises:
        InputError: a target does not exist, or is not a linear layer of the decoder; or a module to
            save does not exist, or contains a target.
    """
    try:
        peft.inject_adapter_in_model(_peft_config(config), model)
    except ValueError as error:
        # The first sentence of peft's message names the target; the rest is about peft's own
        # settings.
        raise _bad_targets(config, str(error).splitlines()[0].split(". ")[0]) from error
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        raise _bad_targets(config, "they include the output head")
    if any("lora_embedding" in name for name, _ in model.named_parameters()):
        raise _bad_targets(config, "they include the embeddings")
    for name, module in _modules_to_save(model, config).items():
        if any(is_lora_factor(child) for child, _ in module.named_parameters(prefix=name)):
            raise _bad_module(name, "it contains layers that lora.target_modules selects")
        if not all(parameter.is_floating_point() for parameter in module.parameters()):
            raise _bad_module(name, "lora.quantization stores its weights in 4 bits")
        module.requires_grad_(True)


def _modules_to_save(model: PreTrainedModel, config: LoraConfig) -> dict[str, nn.Module]:
    """Return the modules that are trained themselves, by name.

    A module with the same parameters as one of them, such as a head with tied embeddings, is
    also included: loading the adapter must set both.
    """
    wanted = set(config.modules_to_save)
    found = {n: m for n, m in model.named_modules() if n.rpartition(".")[2] in wanted}
    for name in sorted(wanted - {name.rpartition(".")[2] for name in found}):
        raise _bad_module(name, "the model has no module of this name")
    trained = {id(parameter) for module in found.values() for parameter in module.parameters()}
    for name, module in model.named_modules():
        own = [id(parameter) for parameter in module.parameters(recurse=False)]
        if name not in found and not trained.isdisjoint(own) and not _is_inside(name, found):
            found[name] = module
    return found


def _is_inside(name: str, modules: Mapping[str, nn.Module]) -> bool:
    return any(name.startswith(f"{outer}.") for outer in modules)


def is_lora_factor(name: str) -> bool:
    """Return whether a parameter of this name is a low-rank factor."""
    return ".lora_" in name


def merge_lora(
    weights: Mapping[str, Tensor], model: PreTrainedModel
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Merge the LoRA factors of a state dict into its weights.

    The sum is rounded once to the weight's dtype. In contrast, peft's `merge_adapter` rounds the
    update before the addition, and needs a model with full weights on one rank.

    Args:
        weights: the state dict of `model`, which has LoRA factors; the parameters of `model` may be
            partitioned.

    Returns:
        The merged weights, and the squared L2 norm of each weight's update.
    """
    merged: dict[str, Tensor] = {}
    squared: dict[str, float] = {}
    for name, weight in weights.items():
        if is_lora_factor(name):
            continue
        layer = name.removesuffix(".base_layer.weight")
        merged_name = name.replace(".base_layer.", ".")
        merged[merged_name] = weight
        if layer + _DOWN in weights:
            adapter: Any = model.get_submodule(layer)
            update = adapter.scaling[_ADAPTER] * (
                weights[layer + _UP].float() @ weights[layer + _DOWN].float()
            )
            if adapter.fan_in_fan_out:  # GPT-2's Conv1D stores its weight as (inputs, outputs).
                update = update.T
            merged[merged_name] = (weight.float() + update).to(weight.dtype)
            squared[merged_name] = float(update.double().square().sum())
    return merged, squared


def save_adapter(
    weights: Mapping[str, Tensor],
    model: PreTrainedModel,
    config: LoraConfig,
    base_model: str,
    folder: Path,
) -> None:
    """Write LoRA factors and saved modules in the format of `peft.PeftModel.from_pretrained`.

    Args:
        weights: the state dict of `model`, in which tied weights may be included once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = _modules_to_save(model, config)
    tensors = {
        name.replace(f".{_ADAPTER}.", "."): tensor
        for name, tensor in weights.items()
        if is_lora_factor(name)
    }
    by_parameter = {id(p): weights[n] for n, p in model.named_parameters() if n in weights}
    for module_name, module in saved.items():
        for name, parameter in module.named_parameters(prefix=module_name):
            # safetensors refuses two names of one tensor.
            tensors[name] = by_parameter[id(parameter)].clone()
    save_file(
        {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    apply_folder_mode(folder)
    adapter_config = _peft_config(config)
    adapter_config.modules_to_save = sorted(saved) or None
    adapter_config.base_model_name_or_path = base_model
    adapter_config.save_pretrained(str(folder))


def _peft_config(config: LoraConfig) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        target_modules=config.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )


def _bad_targets(config: LoraConfig, reason: str) -> InputError:
    targets = ", ".join(config.target_modules or ["all linear layers"])
    return InputError(
        Problem(
            message=f"lora.target_modules {targets} cannot be adapted: {reason}",
            fix="name linear layers of the decoder, such as q_proj and v_proj, or omit it",
        )
    )


def _bad_module(name: str, reason: str) -> InputError:
    return InputError(
        Problem(
            message=f"lora.modules_to_save {name} cannot be trained: {reason}",
            fix="name whole modules that are not adapted, such as embed_tokens or lm_head",
        )
    )
