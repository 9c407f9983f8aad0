"""Define types, settings and notes that all exporters share."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from transformers import PreTrainedTokenizerBase

from orchestrator.foundation.redaction import to_yaml
from trainers.config import TrainConfig
from trainers.data.batches import num_steps
from trainers.data.examples import Example
from trainers.data.roles import COMPLETION_ROLES, Role
from trainers.data.tokenized import EncodedExamples
from trainers.foundation.errors import InputError, Problem
from trainers.loss_config import LossConfig
from trainers.schedule import decay_steps, warmup_steps
from trainers.token_weights import batch_weights

Framework = Literal["trl", "axolotl", "ms-swift"]

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    autoescape=False,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Export:
    """Generated files by name (main file first), notes, and the training command."""

    files: Mapping[str, str]
    notes: list[str]
    command: str


@dataclass(frozen=True)
class Recipe:
    """A training config with its tokenized data.

    `weights` are the loss weights of the data's tokens by role, including weights from the data.
    """

    config: TrainConfig
    reason: str
    model_path: str
    tokenizer: PreTrainedTokenizerBase
    train: Sequence[Example]
    examples: EncodedExamples
    weights: dict[Role, frozenset[float]]
    num_workers: int
    micro_batch_size: int
    accumulation_steps: int

    @property
    def has_binary_weights(self) -> bool:
        """Whether all token weights are 0 or 1, so that a mask can express them."""
        return frozenset().union(*self.weights.values()) <= {0.0, 1.0}

    @property
    def total_steps(self) -> int:
        batch = self.config.batch.global_batch_size
        return num_steps(len(self.examples), batch, self.config.schedule)

    @property
    def warmup_steps(self) -> int:
        return warmup_steps(self.config.schedule, self.total_steps)


def check_binary_weights(recipe: Recipe, framework: str, reason: str) -> None:
    """Raise InputError if a token weight is neither 0 nor 1; `framework` supports only masks."""
    if recipe.has_binary_weights:
        return
    shown = ", ".join(
        f"{role.name.lower()} {format_weights(weights)}" for role, weights in recipe.weights.items()
    )
    raise InputError(
        Problem(
            message=f"{framework} cannot express these token weights ({shown}): {reason}",
            fix="use plw train"
            if any(recipe.weights.get(role, frozenset()) - {0.0, 1.0} for role in COMPLETION_ROLES)
            else "export to ms-swift, which has weights, or give --plw 0 or 1, or use plw train",
        )
    )


def normalization_note(recipe: Recipe, framework: str) -> str:
    """Return a note on how the loss divisor of `framework` differs from `loss.normalization`.

    The frameworks count the tokens whose weight is not 0. Source: transformers
    `Trainer._get_num_items_in_batch`, which counts labels that are not -100.
    """
    loss = recipe.config.loss
    theirs = _divisor(recipe, loss.model_copy(update={"normalization": "nonzero"}))
    ratio = _divisor(recipe, loss) / theirs
    divides = f"{framework} divides by the number of tokens whose weight is not 0"
    if math.isclose(ratio, 1.0):
        return f"{divides}, which equals loss.normalization {loss.normalization} here"
    return (
        f"{divides}, unlike loss.normalization {loss.normalization}: its loss and gradient are "
        f"{ratio:.3g} times ours, which hardly affects AdamW, but affects gradient clipping at "
        f"{recipe.config.optimizer.max_grad_norm:g}"
    )


def _divisor(recipe: Recipe, loss: LossConfig) -> float:
    """Return the sum of the divisors of all global batches, in the order of the data."""
    size = recipe.config.batch.global_batch_size
    batches = (
        [recipe.examples[index] for index in range(start, min(start + size, len(recipe.examples)))]
        for start in range(0, len(recipe.examples), size)
    )
    return sum(batch_weights(batch, loss).divisor for batch in batches)


def format_weights(weights: Collection[float]) -> str:
    """Return a weight, or the smallest and largest of several."""
    shown = [f"{weight:g}" for weight in dict.fromkeys((min(weights), max(weights)))]
    return " to ".join(shown)


def common_notes(recipe: Recipe) -> list[str]:
    """Return notes on the differences that all frameworks share."""
    config = recipe.config
    notes = [
        "the order of the data and the dropout masks differ for the same seed",
        "configure sharding (ZeRO) and offloading in the launcher: they do not change the result",
        "transformers' warm-up starts at 0, one step later than plw's"
        if recipe.warmup_steps
        else "",
        "transformers applies no weight decay to biases and norms, unlike "
        "optimizer.decay_norms_and_biases"
        if config.optimizer.weight_decay and config.optimizer.decay_norms_and_biases
        else "",
        "examples are padded, not packed: the loss is the same" if config.batch.packing else "",
        f"model.dropout {config.model.dropout} is not set: edit the model's config.json"
        if config.model.dropout is not None
        else "",
    ]
    return [note for note in notes if note]


def training_arguments(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as arguments of transformers' TrainingArguments."""
    config = recipe.config
    optimizer, schedule = config.optimizer, config.schedule
    length = (
        {"max_steps": schedule.steps}
        if schedule.steps is not None
        else {"num_train_epochs": schedule.epochs}
    )
    return {
        "per_device_train_batch_size": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps,
        **length,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "max_grad_norm": optimizer.max_grad_norm,
        **_scheduler(recipe),
        "warmup_steps": recipe.warmup_steps,
        "label_smoothing_factor": config.loss.label_smoothing,
        "gradient_checkpointing": config.deepspeed.gradient_checkpointing,
        "logging_steps": config.log_every_steps,
        "seed": config.seed,
    }


def _scheduler(recipe: Recipe) -> dict[str, Any]:
    """Return the name of transformers' schedule, and its arguments if it needs any."""
    schedule, peak = recipe.config.schedule, recipe.config.optimizer.learning_rate
    share = schedule.min_learning_rate_ratio
    match schedule.kind:
        case "constant":
            return {"lr_scheduler_type": "constant_with_warmup"}
        case "wsd":
            arguments = {
                "num_decay_steps": decay_steps(schedule, recipe.total_steps),
                "decay_type": "linear",
                "min_lr_ratio": share,
            }
            return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": arguments}
        case "cosine" if share:
            return {
                "lr_scheduler_type": "cosine_with_min_lr",
                "lr_scheduler_kwargs": {"min_lr_rate": share},
            }
        case "linear" if share:
            return {
                "lr_scheduler_type": "polynomial",
                "lr_scheduler_kwargs": {"lr_end": peak * share, "power": 1.0},
            }
    return {"lr_scheduler_type": schedule.kind}


def header_lines(recipe: Recipe, framework: str, notes: Sequence[str]) -> list[str]:
    """Return the lines of the comment at the top of a generated file."""
    plw = recipe.config.loss.prompt_loss_weight
    return [
        f"{framework}: prompt loss weight {plw:g}, written by plw export.",
        " ".join(recipe.reason.split()),
        *(f"- {note}" for note in notes),
    ]


def config_yaml(header: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Return a comment, followed by the settings that are not None as YAML.

    Numbers have a decimal point (2.0e-05), because YAML 1.1 reads 2e-05 as text.
    """
    comment = "".join(f"# {line}\n" for line in header)
    given = {key: value for key, value in settings.items() if value is not None}
    return comment + re.sub(r"(?m)(: -?\d+)e([+-]?\d+)$", r"\1.0e\2", to_yaml(given))


def render_script(template: str, header: Sequence[str], **values: Any) -> str:
    """Render a Python file from a template of this package, with `header` as its docstring."""
    docstring = "\n".join(header).replace("\\", "\\\\").replace('"""', "'''")
    return _TEMPLATES.get_template(template).render(header=docstring, **values)
