"""DeepSpeed's configuration, derived from the config of a fine-tune without importing DeepSpeed."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trainers.deepspeed_config import DeepSpeedConfig
from trainers.foundation.errors import Problem
from trainers.foundation.suggestions import did_you_mean


def deepspeed_settings(
    max_grad_norm: float, config: DeepSpeedConfig, world_size: int, micro_batch_size: int
) -> dict[str, Any]:
    """Return DeepSpeed's config, with `config.override` merged into it leaf by leaf.

    DeepSpeed must not scale the gradient. Its config therefore has one accumulation step, and our
    code divides the loss. A `max_grad_norm` of 0 disables clipping.

    In bfloat16, the gradients of micro-batches and ranks are summed in float32: a bfloat16 sum
    rounds each addend to 8 bits of the sum.
    """
    is_bfloat16 = config.precision == "bfloat16"
    settings = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        # Without the immediate update, stage 1 also keeps the bfloat16 gradients.
        "bf16": {"enabled": is_bfloat16, "immediate_grad_update": is_bfloat16},
        **(
            {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
            if is_bfloat16
            else {}
        ),
        "zero_optimization": {
            "stage": config.zero_stage,
            **({"offload_optimizer": {"device": "cpu"}} if config.offload_optimizer else {}),
            **({"offload_param": {"device": "cpu"}} if config.offload_parameters else {}),
        },
        # Use torch's AdamW on the CPU. DeepSpeed's AdamW must be compiled first, and its states
        # differ from those of torch's float32 AdamW.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**62,
        "wall_clock_breakdown": False,
    }
    return _merge(settings, config.override)


def _merge(settings: dict[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` with the leaves of `override` added or replaced."""
    merged = dict(settings)
    for key, value in override.items():
        is_tree = isinstance(value, dict) and isinstance(settings.get(key), dict)
        merged[key] = _merge(settings[key], value) if is_tree else value
    return merged


class ReadKeys(dict[str, Any]):
    """DeepSpeed's config, which notes the keys that DeepSpeed looks for.

    DeepSpeed ignores unknown keys at the top level.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: set[str] = set()  # DeepSpeed's shallow copy of the config has the same set.

    @property
    def unknown(self) -> list[str]:
        return sorted(self.keys() - self.read)

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


def unknown_key_problems(config: ReadKeys) -> list[Problem]:
    """Return the keys that DeepSpeed ignores as problems of the override."""
    return [
        Problem(
            message=f"DeepSpeed has no setting {key}",
            where="deepspeed.override",
            fix=did_you_mean(key, config.read) or "remove it",
        )
        for key in config.unknown
    ]


def override_problems(error: Exception) -> list[Problem]:
    """Return what DeepSpeed rejects in its config as problems of the override."""
    details = (
        [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}, got {one['input']!r} ({error.title})"
            for one in error.errors()
        ]
        if isinstance(error, ValidationError)
        else [f"DeepSpeed rejects its config: {type(error).__name__}: {error}"]
    )
    fix = "correct or remove it; the settings are those of DeepSpeed's config"
    return [Problem(message=one, where="deepspeed.override", fix=fix) for one in details]
