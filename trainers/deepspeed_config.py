"""Settings of DeepSpeed: partitioning, precision, and what is kept in CPU memory."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trainers.config_base import StrictSettings

Precision = Literal["float32", "bfloat16"]

# Paths in DeepSpeed's configuration that the user must not set. Either our settings determine them
# (loss, schedule, checkpoints), or they would scale the gradient.
_RESERVED_DEEPSPEED_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "gradient_predivide_factor",
    "prescale_gradients",
    "optimizer",
    "scheduler",
    "bf16",
    "bfloat16",
    "fp16",
    "amp",
    "torch_autocast",
    "zero_force_ds_cpu_optimizer",
    "zero_allow_untested_optimizer",
    "zero_optimization.stage",
    "zero_optimization.offload_optimizer.device",
    "zero_optimization.offload_param.device",
)


class DeepSpeedConfig(StrictSettings):
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="ZeRO stage: what is partitioned over ranks; 0 (nothing) requires float32."
    )
    precision: Precision = Field("bfloat16", description="Data type of weights and activations.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass to save memory."
    )
    offload_optimizer: bool = Field(
        False,
        description="Keep AdamW's states in CPU memory and step there; needs ZeRO 1 to 3.",
    )
    offload_parameters: bool = Field(
        False, description="Keep parameters in CPU memory while no layer needs them; needs ZeRO 3."
    )
    override: dict[str, Any] = Field(
        default_factory=dict,
        description="Merged into DeepSpeed's config; must not set what other settings determine.",
    )

    @model_validator(mode="after")
    def _check_stage(self) -> Self:
        if self.zero_stage == 0 and self.precision == "bfloat16":
            raise ValueError(
                "deepspeed.zero_stage 0 supports only float32; use stage 1 for bfloat16, which is "
                "the same on one rank and needs less memory on several"
            )
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("deepspeed.offload_optimizer needs deepspeed.zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("deepspeed.offload_parameters needs deepspeed.zero_stage 3")
        return self

    @model_validator(mode="after")
    def _check_override(self) -> Self:
        reserved = [path for path in _RESERVED_DEEPSPEED_KEYS if _has_path(self.override, path)]
        if reserved:
            raise ValueError(
                f"deepspeed.override must not set {', '.join(reserved)}: other settings determine "
                "it, such as batch, optimizer, schedule and deepspeed.zero_stage"
            )
        return self


def _has_path(tree: Any, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
