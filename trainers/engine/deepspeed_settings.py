"""What DeepSpeed is told, from what a fine-tune's config says. Imports nothing of it."""

from collections.abc import Mapping
from typing import Any

from trainers.config import DeepSpeedConfig


def deepspeed_settings(
    max_grad_norm: float, config: DeepSpeedConfig, world_size: int, micro_batch_size: int
) -> dict[str, Any]:
    """DeepSpeed's config: what ours says, and what keeps a step's loss the one that we wrote down.

    `override` of ours is put over it leaf by leaf; a `max_grad_norm` of 0 clips nothing.
    """
    own = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": config.precision == "bfloat16"},
        "zero_optimization": {
            "stage": config.zero_stage,
            **({"offload_optimizer": {"device": "cpu"}} if config.offload_optimizer else {}),
            **({"offload_param": {"device": "cpu"}} if config.offload_parameters else {}),
        },
        # torch's AdamW on the CPU: DeepSpeed's own would be compiled first, and the states
        # would no longer be those of a plain float32 AdamW.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**62,
        "wall_clock_breakdown": False,
    }
    return _merged(own, config.override)


def _merged(own: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """`own` with the leaves of `override` put in or over it."""
    merged = dict(own)
    for key, value in override.items():
        is_tree = isinstance(value, dict) and isinstance(own.get(key), dict)
        merged[key] = _merged(own[key], value) if is_tree else value
    return merged
