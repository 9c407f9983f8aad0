"""The settings of one fine-tune: frozen, checked when built, the same in YAML, JSON and Python.

Every field has one line that says what it is, its unit and what its special values mean; the
sweep spec reuses these sections, so a setting has the same dotted path everywhere.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

NormalizationMode = Literal["weights", "nonzero", "completion", "tokens"]
Precision = Literal["float32", "bfloat16"]
CompletionTurns = Literal["last", "all"]
TooLong = Literal["truncate", "drop", "error"]
ScheduleKind = Literal["cosine", "linear", "constant"]

# The largest numbers: what follows from them, such as tokens of a run, must stay a finite float,
# and NumPy, which draws for Optuna, takes no larger seeds.
MAX_COUNT = 10**12
MAX_EPOCHS = 10**6
MAX_SEED = 2**32 - 1

PositiveInt = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MAX_PATH_PART_BYTES = 255


def _possible_path(text: str) -> str:
    """`text`, if a file could be called so: what asks for others crashes or looks for none."""
    if "\0" in text:
        raise ValueError("must not hold a zero byte")
    if any(len(part.encode()) > MAX_PATH_PART_BYTES for part in text.split("/")):
        raise ValueError(f"no part of a path may be longer than {MAX_PATH_PART_BYTES} bytes")
    try:
        Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ValueError(
            f"must not begin with {user}, which is no user's home folder here"
        ) from None
    return text


PathText = Annotated[str, AfterValidator(_possible_path)]


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    # Strict, so that `true` is not a weight of 1 and "20" not a number of steps.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class ModelConfig(Section):
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
        description="Set every dropout probability that the model family has; null keeps its own.",
    )
    trust_remote_code: bool = Field(False, description="Run code that comes with the model.")


class DataConfig(Section):
    path: PathText = Field(
        min_length=1,
        description=(
            "JSONL, JSON or Parquet file, hub name, demo:python-docs-short or "
            "demo:python-docs-long."
        ),
    )
    split: str = Field("train", description="Split of a hub data set.")
    template: PathText = Field(
        "chat",
        min_length=1,
        description=(
            "chat (the model's own), alpaca, plain, or the path of a Jinja file that renders "
            "`prompt`, `instruction`, `input` and `messages` up to where the completion starts."
        ),
    )
    completion_turns: CompletionTurns = Field(
        "last",
        description=(
            "Assistant turns of a chat that are completion: the last, with earlier ones part of "
            "the prompt, or all, each with its end-of-turn token."
        ),
    )
    max_length: Annotated[int, Field(ge=8, le=MAX_COUNT)] = Field(
        512, description="Tokens per example, its end-of-sequence token included."
    )
    too_long: TooLong = Field(
        "truncate",
        description=(
            "What happens to a longer example: its prompt is cut from the left and its completion "
            "kept as far as it fits, it is left out, or it is an error."
        ),
    )
    heldout_examples: Annotated[int, Field(ge=0, le=MAX_COUNT)] = Field(
        256,
        description=(
            "Examples kept out of training, drawn by data.seed; 0, to train on all, is for a final "
            "model that is not scored."
        ),
    )
    train_examples: PositiveInt | None = Field(
        None, description="Use only this many of the training examples; null uses all."
    )
    seed: Seed = Field(0, description="Seed of the held-out split, the same for all trials.")


class RoleWeights(Section):
    """Loss weights of single roles, where they differ from the usual two."""

    system: Weight | None = Field(
        None, description="Weight of a system turn's token; null takes loss.prompt_loss_weight."
    )
    user: Weight | None = Field(
        None, description="Weight of a user turn's token; null takes loss.prompt_loss_weight."
    )
    template: Weight | None = Field(
        None, description="Weight of a token of the template; null takes loss.prompt_loss_weight."
    )
    completion: Weight | None = Field(
        None,
        description="Weight of a completion token; null is 1. It can be searched together with "
        "loss.prompt_loss_weight.",
    )


class LossConfig(Section):
    prompt_loss_weight: Weight = Field(
        0.0, description="Weight of a prompt token beside 1 for a completion token."
    )
    role_weights: RoleWeights = Field(
        RoleWeights(), description="Weights of single roles that replace the usual ones."
    )
    normalization: NormalizationMode = Field(
        "weights", description="What the weighted sum over the global batch is divided by."
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of each target's probability that is spread over the vocabulary."
    )

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        roles = self.role_weights
        prompt = (roles.system, roles.user, roles.template)
        prompt_counts = any(self.prompt_loss_weight if w is None else w for w in prompt)
        if roles.completion == 0 and not prompt_counts:
            raise ValueError(
                "a token of some role must count: loss.role_weights.completion is 0, and so is"
                " the weight of system, user and template tokens; set one of them above 0"
            )
        return self


class OptimizerConfig(Section):
    learning_rate: Positive = Field(2e-5, description="Peak learning rate of AdamW.")
    weight_decay: NonNegative = Field(0.0, description="Decoupled weight decay of AdamW.")
    distance_penalty: NonNegative = Field(
        0.0,
        description="Decoupled decay towards the pre-trained weights, as weight_decay is to zero.",
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="AdamW's decay of the mean of gradients."
    )
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="AdamW's decay of the mean of squared gradients."
    )
    epsilon: Positive = Field(1e-8, description="Added to AdamW's divisor.")
    max_grad_norm: NonNegative = Field(1.0, description="Global gradient norm limit; 0 is off.")


class ScheduleConfig(Section):
    kind: ScheduleKind = Field("cosine", description="Shape of the decay after the warm-up.")
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.03, description="Share of the steps over which the learning rate rises from 0."
    )
    epochs: Annotated[float, Field(gt=0, le=MAX_EPOCHS, allow_inf_nan=False)] | None = Field(
        None, description="Passes over the data; or give steps."
    )
    steps: PositiveInt | None = Field(None, description="Optimizer steps; or give epochs.")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of schedule.epochs and schedule.steps")
        return self


class BatchConfig(Section):
    global_batch_size: PositiveInt = Field(
        128, description="Examples per optimizer step, over all ranks and micro-batches."
    )
    micro_batch_size: PositiveInt = Field(4, description="Examples per forward pass of one rank.")
    packing: bool = Field(
        False,
        description=(
            "Put examples back to back instead of padding them, as many as batch.max_tokens holds "
            "or else batch.micro_batch_size x data.max_length tokens; none sees another, so loss "
            "and gradient stay the same."
        ),
    )
    max_tokens: PositiveInt | None = Field(
        None,
        description=(
            "Most tokens of one forward pass of one rank, padding included, to bound its memory; "
            "null sets no other bound than batch.micro_batch_size."
        ),
    )


# What we set for the loss, the schedule and the checkpoints to be what they say, as paths into
# DeepSpeed's configuration; and what would scale the gradient behind our back.
_OWN_DEEPSPEED_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "gradient_predivide_factor",
    "prescale_gradients",
    "optimizer",
    "scheduler",
    "bf16",
    "fp16",
    "amp",
    "torch_autocast",
    "zero_force_ds_cpu_optimizer",
    "zero_allow_untested_optimizer",
    "zero_optimization.stage",
    "zero_optimization.offload_optimizer.device",
    "zero_optimization.offload_param.device",
)


class DeepSpeedConfig(Section):
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="What ZeRO partitions over ranks; 0, nothing, is for float32."
    )
    precision: Precision = Field("bfloat16", description="Type of weights and activations.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass to save memory."
    )
    offload_optimizer: bool = Field(
        False, description="Keep AdamW's states in CPU memory and step there; ZeRO 1 to 3."
    )
    offload_parameters: bool = Field(
        False, description="Keep parameters in CPU memory while no layer needs them; ZeRO 3."
    )
    override: dict[str, Any] = Field(
        default_factory=dict,
        description="Merged into DeepSpeed's own configuration, but for what is set here already.",
    )

    @model_validator(mode="after")
    def _stage_of_the_rest(self) -> Self:
        if self.zero_stage == 0 and self.precision == "bfloat16":
            raise ValueError(
                "deepspeed.zero_stage 0 trains in float32 only; take stage 1 for bfloat16, which "
                "on one rank is the same and on several keeps less"
            )
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("deepspeed.offload_optimizer needs deepspeed.zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("deepspeed.offload_parameters needs deepspeed.zero_stage 3")
        return self

    @model_validator(mode="after")
    def _override_of_others(self) -> Self:
        taken = [path for path in _OWN_DEEPSPEED_KEYS if _has_path(self.override, path)]
        if taken:
            raise ValueError(
                f"deepspeed.override must not set {', '.join(taken)}: it follows from the other "
                "settings, such as batch, optimizer, schedule and deepspeed.zero_stage"
            )
        return self


def _has_path(tree: Any, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True


class LoraConfig(Section):
    rank: PositiveInt = Field(16, description="Rank of each layer's two low-rank factors.")
    alpha: Positive = Field(32.0, description="The update is scaled by alpha over rank.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Dropout before the first factor."
    )
    target_modules: list[str] | None = Field(
        None,
        min_length=1,
        description="Last parts of the layers' names; null takes all linear ones but the head.",
    )


class CheckpointConfig(Section):
    every_steps: PositiveInt | None = Field(
        None, description="Steps between checkpoints; null writes the last one only."
    )
    keep: PositiveInt = Field(1, description="Checkpoints kept; older ones are deleted.")


class TrainConfig(Section):
    """One fine-tune. `plw train` reads it from YAML; a sweep makes one for each trial."""

    model: ModelConfig
    data: DataConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig(epochs=3)
    batch: BatchConfig = BatchConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    lora: LoraConfig | None = Field(
        None, description="Train low-rank updates of frozen layers; null trains all weights."
    )
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every_steps: PositiveInt = Field(1, description="Steps between logged metrics.")
    log_distance_every_steps: PositiveInt | None = Field(
        None,
        description=(
            "Steps between logged distances from the pre-trained weights, for which a copy of "
            "them is kept in memory; null measures it once, at the end."
        ),
    )
    log_heldout_every_steps: PositiveInt | None = Field(
        None,
        description=(
            "Steps between measurements of the loss on held-out examples, of completion and of "
            "prompt tokens; null takes none."
        ),
    )
    seed: Seed = Field(0, description="Seed of the data order and of dropout.")

    @model_validator(mode="after")
    def _distance_of_lora(self) -> Self:
        if self.lora is not None and (
            self.optimizer.distance_penalty > 0 or self.log_distance_every_steps
        ):
            raise ValueError(
                "under lora the pre-trained weights stay where they are, so there is no "
                "optimizer.distance_penalty and no log_distance_every_steps; the distance of the "
                "merged weights is measured at the end, and optimizer.weight_decay pulls on it"
            )
        return self

    @model_validator(mode="after")
    def _something_held_out(self) -> Self:
        if self.log_heldout_every_steps is not None and self.data.heldout_examples == 0:
            raise ValueError(
                "log_heldout_every_steps needs data.heldout_examples of 1 or more; drop it, or "
                "hold some out"
            )
        return self

    @model_validator(mode="after")
    def _attention_of_packing(self) -> Self:
        if self.batch.packing and self.model.attention != "sdpa":
            raise ValueError(
                "batch.packing keeps examples apart by an attention of its own, built on SDPA; "
                "set model.attention to sdpa"
            )
        return self
