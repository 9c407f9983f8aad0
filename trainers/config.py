"""Settings of one fine-tune: frozen, validated when built, and the same in YAML, JSON and Python.

The description of each field gives its meaning, unit and special values. The sweep spec contains
the same sections, so a setting has the same dotted path everywhere.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, ValidationError, field_validator, model_validator

from trainers.config_base import (
    MAX_COUNT,
    MAX_EPOCHS,
    NonNegative,
    PathText,
    Positive,
    PositiveInt,
    Seed,
    StrictSettings,
)
from trainers.data_config import DataConfig
from trainers.deepspeed_config import DeepSpeedConfig
from trainers.foundation.renamed_settings import with_current_names
from trainers.loss_config import LossConfig

FusedKernels = Literal["auto", "off"]
ScheduleKind = Literal["cosine", "linear", "constant", "wsd"]


class ModelConfig(StrictSettings):
    path: PathText = Field(
        min_length=1,
        description="Local folder, hub name, or demo:smollm2-135m-instruct.",
    )
    revision: str | None = Field(None, description="Hub revision; null takes the default branch.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="Attention implementation of transformers."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="Set every dropout probability of the model; null keeps those of its config.",
    )
    trust_remote_code: bool = Field(
        False, description="Run code from the model's folder or hub repository."
    )
    compile_layers: bool = Field(
        False,
        description="Compile the decoder layers by torch.compile; takes minutes at the start, and "
        "needs ZeRO 0 to 2.",
    )
    fused_kernels: FusedKernels = Field(
        "off",
        description="Liger's kernels for norms and MLPs: auto uses them on a GPU where liger-kernel"
        " is installed and supports the model.",
    )

    @model_validator(mode="after")
    def _check_kernels(self) -> Self:
        if self.compile_layers and self.fused_kernels == "auto":
            raise ValueError(
                "model.compile_layers and model.fused_kernels auto replace the same operations; "
                "set compile_layers to false, or fused_kernels to off"
            )
        return self


class OptimizerConfig(StrictSettings):
    learning_rate: Positive = Field(2e-5, description="Peak learning rate of AdamW.")
    weight_decay: NonNegative = Field(0.0, description="Decoupled weight decay of AdamW.")
    decay_norms_and_biases: bool = Field(
        False, description="Apply weight_decay also to vectors (norms) and biases."
    )
    l2_sp: NonNegative = Field(
        0.0,
        # Source: arXiv 1802.01483 (Li et al. 2018), L2-SP. Our version is decoupled from the
        # gradient, like AdamW's weight decay.
        description="Decoupled decay towards the pre-trained weights (L2-SP, arXiv 1802.01483).",
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="AdamW's decay of the mean of gradients."
    )
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="AdamW's decay of the mean of squared gradients."
    )
    epsilon: Positive = Field(1e-8, description="Added to AdamW's denominator.")
    state_bits: Literal[8, 32] = Field(
        32,
        description="Bits of each of AdamW's two moments; 8 (bitsandbytes) needs the extra qlora, "
        "and resumes only with the same number of ranks.",
    )
    max_grad_norm: NonNegative = Field(
        1.0, description="Limit of the global gradient norm; 0 disables clipping."
    )


class ScheduleConfig(StrictSettings):
    kind: ScheduleKind = Field(
        "cosine",
        # Source: arXiv 2404.06395, warmup-stable-decay.
        description="Shape of the decay after the warm-up; wsd (warmup-stable-decay): constant, "
        "then linear.",
    )
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.03, description="Share of the steps over which the learning rate rises from 0."
    )
    warmup_steps: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = Field(
        None, description="Steps of the warm-up, in place of warmup_ratio; null uses warmup_ratio."
    )
    decay_ratio: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Kind wsd only: share of the steps that decay; null is 0.1."
    )
    min_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Learning rate at the end of the decay, as a share of the peak."
    )
    epochs: Annotated[float, Field(gt=0, le=MAX_EPOCHS, allow_inf_nan=False)] | None = Field(
        None, description="Passes over the data; alternative to steps."
    )
    steps: PositiveInt | None = Field(None, description="Optimizer steps; alternative to epochs.")

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            found = "neither" if self.steps is None else "both; set the other one to null"
            raise ValueError(f"set exactly one of schedule.epochs and schedule.steps, got {found}")
        return self

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if self.decay_ratio is not None and self.kind != "wsd":
            raise ValueError(
                f"schedule.decay_ratio needs schedule.kind wsd, got {self.kind}; remove it, or set "
                "schedule.kind to wsd"
            )
        if self.min_learning_rate_ratio > 0 and self.kind == "constant":
            raise ValueError(
                "schedule.min_learning_rate_ratio needs a decay, but schedule.kind is constant; "
                "remove it, or set schedule.kind to cosine, linear or wsd"
            )
        return self


class BatchConfig(StrictSettings):
    global_batch_size: PositiveInt = Field(
        128, description="Examples per optimizer step, over all ranks and micro-batches."
    )
    micro_batch_size: PositiveInt = Field(4, description="Examples per forward pass of one rank.")
    packing: bool = Field(
        False,
        description=(
            "Concatenate examples instead of padding them, up to batch.max_tokens or else "
            "batch.micro_batch_size x data.max_length tokens. Examples do not attend to each "
            "other, so loss and gradient stay the same."
        ),
    )
    max_tokens: PositiveInt | None = Field(
        None,
        description=(
            "Maximum tokens of one forward pass of one rank, including padding, to limit its "
            "memory; null limits it only by batch.micro_batch_size."
        ),
    )


class LoraConfig(StrictSettings):
    rank: PositiveInt = Field(16, description="Rank of each layer's two low-rank factors.")
    alpha: Positive = Field(32.0, description="The update is scaled by alpha / rank.")
    rslora: bool = Field(
        False,
        # Source: arXiv 2312.03732, rank-stabilized LoRA.
        description="Scale the update by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Dropout before the first factor."
    )
    target_modules: list[str] | None = Field(
        None,
        min_length=1,
        description="Last components of layer names; null selects all linear layers but the head.",
    )
    modules_to_save: list[str] = Field(
        [],
        description="Last components of names of modules whose own weights are trained too, such as"
        " embed_tokens or lm_head; they are saved with the adapter.",
    )

    quantization: Literal["nf4"] | None = Field(
        None,
        description="Keep the frozen weights in 4 bits (QLoRA, arXiv 2305.14314); needs the extra "
        "qlora, and ZeRO 0 to 2.",
    )

    @model_validator(mode="after")
    def _check_modules(self) -> Self:
        both = sorted(set(self.modules_to_save) & set(self.target_modules or ()))
        if both:
            raise ValueError(
                f"lora.target_modules and lora.modules_to_save both contain {', '.join(both)}; a "
                "module is either adapted or trained: remove it from one of them"
            )
        return self


class CheckpointConfig(StrictSettings):
    every_steps: PositiveInt | None = Field(
        None, description="Steps between checkpoints; null: by time only."
    )
    every_minutes: Positive | None = Field(
        15.0,
        description="Minutes between checkpoints, which is the most that a lost node or a crash "
        "costs; null: by steps only.",
    )
    keep: PositiveInt = Field(
        1, description="Number of checkpoints to keep; older ones are deleted."
    )


class TrainConfig(StrictSettings):
    """Settings of one fine-tune, from `plw train`'s YAML file or from a sweep's trial."""

    model: ModelConfig
    data: DataConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig(epochs=3)
    batch: BatchConfig = BatchConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    lora: LoraConfig | None = Field(
        None, description="Train LoRA factors of frozen layers; null trains all weights."
    )
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every_steps: PositiveInt = Field(1, description="Steps between logged metrics.")
    log_distance_every_steps: PositiveInt | None = Field(
        None,
        description=(
            "Steps between logged distances from the pre-trained weights, which needs a copy of "
            "each rank's share in memory; null measures none during training."
        ),
    )
    log_final_distance: bool = Field(
        True,
        description=(
            "Measure the distance from the pre-trained weights at the end, which reads them again."
        ),
    )
    log_heldout_every_steps: PositiveInt | None = Field(
        None,
        description=(
            "Steps between measurements of the held-out loss of completion and prompt tokens; "
            "null disables them."
        ),
    )
    export_best_every_steps: PositiveInt | None = Field(
        None,
        description=(
            "Steps between evaluations of the held-out completion loss; the model of the lowest one"
            " is exported. Null exports the model of the last step."
        ),
    )
    profile_steps: Annotated[tuple[PositiveInt, PositiveInt], Strict(False)] | None = Field(
        None,
        description=(
            "First and last step to trace with torch.profiler, such as [3, 4]; the traces are in "
            "the run's folder, below profile/. Null traces none."
        ),
    )
    deterministic: bool = Field(
        False,
        description=(
            "Use only deterministic algorithms on a GPU, so that a repeated or resumed run gives "
            "the same bits; slower. On a CPU, it always does."
        ),
    )
    seed: Seed = Field(0, description="Seed of the data order and of dropout.")

    @property
    def measures_heldout_loss(self) -> bool:
        """Return whether training measures the held-out loss."""
        return (self.log_heldout_every_steps, self.export_best_every_steps) != (None, None)

    @field_validator("profile_steps")
    @classmethod
    def _check_profile_steps(cls, steps: tuple[int, int] | None) -> tuple[int, int] | None:
        if steps is not None and steps[0] > steps[1]:
            raise ValueError("must be the first and the last step, in this order")
        return steps

    @model_validator(mode="after")
    def _check_lora(self) -> Self:
        if self.lora is not None and (self.optimizer.l2_sp > 0 or self.log_distance_every_steps):
            raise ValueError(
                "lora keeps the pre-trained weights fixed, so it supports neither optimizer.l2_sp "
                "nor log_distance_every_steps; the distance of the merged weights is measured at "
                "the end, and optimizer.weight_decay reduces it"
            )
        return self

    @model_validator(mode="after")
    def _check_compilation(self) -> Self:
        if self.model.compile_layers and self.deepspeed.zero_stage == 3:
            raise ValueError(
                "model.compile_layers does not support deepspeed.zero_stage 3, which gathers the "
                "weights inside the layers; set compile_layers to false, or use stage 2"
            )
        if self.model.compile_layers and self.lora is not None and self.lora.quantization:
            raise ValueError(
                "model.compile_layers does not support lora.quantization; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _check_state_bits(self) -> Self:
        if self.optimizer.state_bits == 8 and self.deepspeed.offload_optimizer:
            raise ValueError(
                "optimizer.state_bits 8 keeps small moments on the GPU, and "
                "deepspeed.offload_optimizer keeps them in CPU memory; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _check_quantization(self) -> Self:
        is_quantized = self.lora is not None and self.lora.quantization is not None
        if is_quantized and self.deepspeed.zero_stage == 3:
            raise ValueError(
                "lora.quantization does not support deepspeed.zero_stage 3; use stage 2: the "
                "frozen weights are small, and the states of the factors are partitioned"
            )
        return self

    @model_validator(mode="after")
    def _check_heldout(self) -> Self:
        for name in ("log_heldout_every_steps", "export_best_every_steps"):
            if getattr(self, name) is not None and self.data.heldout_examples == 0:
                raise ValueError(
                    f"{name} needs data.heldout_examples of at least 1; raise it, or remove {name}"
                )
        return self

    @model_validator(mode="after")
    def _check_packing(self) -> Self:
        if self.batch.packing and self.model.attention != "sdpa":
            raise ValueError(
                "batch.packing has its own attention function, which is based on SDPA; set "
                "model.attention to sdpa, or batch.packing to false if the model has no SDPA"
            )
        return self


def is_same_config(recorded: Mapping[str, Any], config: TrainConfig) -> bool:
    """Return whether the recorded settings of a run equal those of `config`.

    Settings are compared after validation. A setting that was renamed, or added with a default,
    since the record was written makes no difference.
    """
    settings = with_current_names(recorded)
    optimizer = settings.get("optimizer", {})
    if optimizer.get("weight_decay"):
        # Records without the setting are of releases that decayed all weights.
        settings = {**settings, "optimizer": {"decay_norms_and_biases": True, **optimizer}}
    try:
        return TrainConfig.model_validate(settings) == config
    except ValidationError:
        return False
