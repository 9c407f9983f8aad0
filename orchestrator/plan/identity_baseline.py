"""Define frozen values of all settings; a trial's id depends only on values that differ.

BASELINE never changes, even if a default changes or a setting is renamed. A new setting gets a line
in ADDED, with the value that keeps the earlier behaviour of training; the setting's default may be
another value. Both mappings use the name that the setting had when its line was written.
"""

from collections.abc import Mapping
from typing import Any

from trainers.foundation.renamed_settings import RENAMED_SETTINGS

IDENTITY_VERSION = 1

# The defaults of the release that introduced IDENTITY_VERSION 1. None for a section: it is absent
# by default. The paths of model and data have no default; their contents are always hashed.
BASELINE: Mapping[str, Any] = {
    "model.revision": None,
    "model.attention": "sdpa",
    "model.dropout": None,
    "model.trust_remote_code": False,
    "data.split": "train",
    "data.template": "chat",
    "data.completion_turns": "last",
    "data.max_length": 512,
    "data.too_long": "truncate",
    "data.heldout_examples": 256,
    "data.train_examples": None,
    "data.seed": 0,
    "loss.prompt_loss_weight": 0.0,
    "loss.role_weights.system": None,
    "loss.role_weights.user": None,
    "loss.role_weights.template": None,
    "loss.role_weights.completion": None,
    "loss.normalization": "weights",
    "loss.label_smoothing": 0.0,
    "optimizer.learning_rate": 2e-5,
    "optimizer.weight_decay": 0.0,
    "optimizer.distance_penalty": 0.0,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.epsilon": 1e-8,
    "optimizer.max_grad_norm": 1.0,
    "schedule.kind": "cosine",
    "schedule.warmup_ratio": 0.03,
    "schedule.epochs": 3.0,
    "schedule.steps": None,
    "batch.global_batch_size": 128,
    "batch.micro_batch_size": 4,
    "batch.packing": False,
    "batch.max_tokens": None,
    "deepspeed.zero_stage": 2,
    "deepspeed.precision": "bfloat16",
    "deepspeed.gradient_checkpointing": False,
    "deepspeed.offload_optimizer": False,
    "deepspeed.offload_parameters": False,
    "deepspeed.override": {},
    "lora": None,
    "lora.rank": 16,
    "lora.alpha": 32.0,
    "lora.dropout": 0.0,
    "lora.target_modules": None,
    "seed": 0,
}
ADDED: Mapping[str, Any] = {
    "lora.rslora": False,
    "lora.modules_to_save": [],
    "lora.quantization": None,
    # Trials with weight decay have another id (behaviour.py).
    "optimizer.decay_norms_and_biases": False,
    "schedule.warmup_steps": None,
    "schedule.decay_ratio": None,
    "schedule.min_learning_rate_ratio": 0.0,
    "data.name": None,
    "data.revision": None,
    "data.columns": {},
    "data.sources": [],
    "data.ignore": [],
    "data.drop": [],
    "data.template_args": {},
    "data.truncation_side": "left",
    # Trials with a completion that is too long have another id (behaviour.py).
    "data.too_long_completion": "drop",
    "loss.role_weights.tool": None,
    "loss.role_weights.history": None,
    "loss.role_weights.thinking": None,
    "loss.data_weights": "multiply",
    "deterministic": False,
    "export_best_every_steps": None,
    "model.compile_layers": False,
    "model.fused_kernels": "off",
    "optimizer.state_bits": 32,
}


def baseline_names() -> dict[str, str]:
    """Return the name in BASELINE or ADDED of each renamed setting, by its current name."""
    return {new: old for old, new in RENAMED_SETTINGS.items() if old in BASELINE or old in ADDED}
