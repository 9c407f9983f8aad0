"""Fused kernels of Liger for norms and MLPs, where they are installed and there is a GPU."""

import inspect
import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from transformers import PreTrainedModel

from trainers.config import FusedKernels

log = logging.getLogger(__name__)

# Liger's rotary function would replace transformers' for every model of the process, also those
# that are scored later. Its losses would replace the model's forward pass, which we do not use.
_NOT_APPLIED = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}


def apply_fused_kernels(
    model: PreTrainedModel, setting: FusedKernels, device: torch.device
) -> bool:
    """Replace the norms and MLPs of `model` by Liger's, if the setting and the machine allow it.

    Only this model changes, and its weights and their names stay. Returns whether it was done.
    """
    reason = why_not_fused(setting, device, model.config.model_type)
    if reason is not None:
        if setting == "auto":
            log.info("no fused kernels: %s", reason)
        return False
    family = import_module(type(model).__module__)
    before = dict(vars(family))
    apply = _liger_functions()[model.config.model_type]
    accepted = inspect.signature(apply).parameters
    apply(model=model, **{k: v for k, v in _NOT_APPLIED.items() if k in accepted})
    # Liger also replaces the classes in transformers' module, for models that are built later.
    for name, value in before.items():
        setattr(family, name, value)
    log.info("fused kernels: Liger's norms and MLPs")
    return True


def why_not_fused(setting: FusedKernels, device: torch.device, model_type: str) -> str | None:
    """Return the reason why Liger's kernels are not applied; None if they are."""
    if setting == "off":
        return "model.fused_kernels is off"
    if device.type != "cuda":
        return "they need a GPU"
    if find_spec("liger_kernel") is None:
        return "liger-kernel is not installed"
    if model_type not in _liger_functions():
        return f"Liger has none for {model_type}"
    return None


def _liger_functions() -> dict[str, Any]:
    functions: dict[str, Any] = import_module(
        "liger_kernel.transformers.monkey_patch"
    ).MODEL_TYPE_TO_APPLY_LIGER_FN
    return functions
