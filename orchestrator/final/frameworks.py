"""One fine-tune's setting for other frameworks: what each can express, and what none of it can."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from orchestrator.foundation.redaction import to_yaml
from trainers.config import TrainConfig
from trainers.data.batches import num_steps
from trainers.data.examples import Example
from trainers.data.roles import PROMPT_ROLES, Role
from trainers.data.tokenize import encode_all, read_split
from trainers.data.tokenized import EncodedExamples
from trainers.foundation.errors import InputError, Problem
from trainers.loss import denominator, role_weights
from trainers.models.loading import load_tokenizer, resolve_model_path

Framework = Literal["trl", "axolotl", "ms-swift"]
FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)


@dataclass(frozen=True)
class Export:
    """Files by name, of which the first is the one to start from, and what to know of them."""

    files: Mapping[str, str]
    notes: list[str]
    command: str


@dataclass(frozen=True)
class Source:
    """A setting with its training data in tokens; `weights` are those of the roles that occur."""

    config: TrainConfig
    reason: str
    model_path: str
    tokenizer: PreTrainedTokenizerBase
    train: list[Example]
    examples: EncodedExamples
    weights: dict[Role, float]
    num_workers: int
    micro_batch_size: int
    accumulation_steps: int

    @property
    def is_binary(self) -> bool:
        """Whether every token counts wholly or not at all, which a mask can say."""
        return set(self.weights.values()) <= {0.0, 1.0}

    @property
    def total_steps(self) -> int:
        batch = self.config.batch.global_batch_size
        return num_steps(len(self.examples), batch, self.config.schedule)

    @property
    def warmup_steps(self) -> int:
        return math.ceil(self.config.schedule.warmup_ratio * self.total_steps)


def read_source(config: TrainConfig, *, reason: str, num_workers: int) -> Source:
    """The setting of `config` with its training data, the held-out part left out.

    Raises:
        InputError: model or data cannot be read, or the batch cannot be dealt to the workers.
    """
    tokenizer = load_tokenizer(config.model)
    train = read_split(config.data).train
    examples = encode_all(train, config.data, tokenizer)
    weights = role_weights(config.loss)
    share, rest = divmod(config.batch.global_batch_size, num_workers)
    if rest or not share:
        raise InputError(
            Problem(
                message=(
                    f"--workers must divide batch.global_batch_size"
                    f" {config.batch.global_batch_size}, got {num_workers}"
                ),
                fix="give another number, or --set batch.global_batch_size",
            )
        )
    micro = max(n for n in range(1, config.batch.micro_batch_size + 1) if share % n == 0)
    return Source(
        config=config,
        reason=reason,
        model_path=resolve_model_path(config.model.path),
        tokenizer=tokenizer,
        train=train,
        examples=examples,
        weights={Role(role): weights[Role(role)] for role in np.unique(examples.roles).tolist()},
        num_workers=num_workers,
        micro_batch_size=micro,
        accumulation_steps=share // micro,
    )


def make_export(source: Source, framework: Framework, out: Path) -> Export:
    """The files for `framework`, of which the first goes to `out` and the others beside it.

    Raises:
        InputError: the framework cannot express the loss, or part of the recipe.
    """
    from orchestrator.final.axolotl import axolotl_export
    from orchestrator.final.ms_swift import swift_export
    from orchestrator.final.trl import trl_export

    if source.config.optimizer.distance_penalty > 0:
        raise InputError(
            Problem(
                message=f"{framework} has no optimizer.distance_penalty",
                fix="train with plw train, or --set optimizer.distance_penalty=0",
            )
        )
    make = {"trl": trl_export, "axolotl": axolotl_export, "ms-swift": swift_export}[framework]
    return make(source, out)


def refuse_fraction(source: Source, framework: str, why: str) -> None:
    """Raise InputError if a weight lies between 0 and 1, which `framework` has no way to say."""
    if source.is_binary:
        return
    shown = ", ".join(f"{role.name.lower()} {weight:g}" for role, weight in source.weights.items())
    raise InputError(
        Problem(
            message=f"{framework} cannot express these token weights ({shown}): {why}",
            fix="export to ms-swift, which has weights, or give --plw 0 or 1, or use plw train",
        )
    )


def normalization_note(source: Source, framework: str) -> str:
    """How the divisor of `framework` differs from `loss.normalization`.

    It counts tokens whose weight is not 0. Source: transformers
    `Trainer._get_num_items_in_batch`, which counts labels that are not -100.
    """
    loss = source.config.loss
    counts = source.examples.target_counts()
    theirs = denominator(counts, loss.model_copy(update={"normalization": "nonzero"}))
    ratio = denominator(counts, loss) / theirs
    divides = f"{framework} divides by the number of tokens whose weight is not 0"
    if math.isclose(ratio, 1.0):
        return f"{divides}, which is what loss.normalization {loss.normalization} does here"
    return (
        f"{divides}, not as loss.normalization {loss.normalization}: its loss and gradient are "
        f"{ratio:.3g} times ours, which AdamW hardly sees, but gradient clipping at "
        f"{source.config.optimizer.max_grad_norm:g} acts on"
    )


def common_notes(source: Source) -> list[str]:
    """What is lost or done differently in all of them."""
    config = source.config
    notes = [
        "the order of the data and dropout's draws differ, so seeds do not match",
        "sharding (ZeRO) and offloading are left to the launcher: they do not change the result",
        "transformers' warm-up begins at 0, one step behind plw's" if source.warmup_steps else "",
        "transformers leaves biases and norms out of weight decay, plw does not"
        if config.optimizer.weight_decay
        else "",
        "examples are padded, not packed: the loss is the same" if config.batch.packing else "",
        f"model.dropout {config.model.dropout} is not set: edit the model's config.json"
        if config.model.dropout is not None
        else "",
    ]
    return [note for note in notes if note]


def trainer_settings(source: Source) -> dict[str, Any]:
    """The recipe in the words of transformers' TrainingArguments, which all of them build on."""
    config = source.config
    optimizer, schedule = config.optimizer, config.schedule
    length = (
        {"max_steps": schedule.steps}
        if schedule.steps is not None
        else {"num_train_epochs": schedule.epochs}
    )
    return {
        "per_device_train_batch_size": source.micro_batch_size,
        "gradient_accumulation_steps": source.accumulation_steps,
        **length,
        "learning_rate": optimizer.learning_rate,
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "max_grad_norm": optimizer.max_grad_norm,
        "lr_scheduler_type": (
            "constant_with_warmup" if schedule.kind == "constant" else schedule.kind
        ),
        "warmup_steps": source.warmup_steps,
        "label_smoothing_factor": config.loss.label_smoothing,
        "gradient_checkpointing": config.deepspeed.gradient_checkpointing,
        "logging_steps": config.log_every_steps,
        "seed": config.seed,
    }


def settings_yaml(settings: Mapping[str, Any]) -> str:
    """Settings as a YAML file that YAML 1.1 reads alike, for which 2e-05 is a text."""
    return re.sub(r"(?m)(: -?\d+)e([+-]?\d+)$", r"\1.0e\2", to_yaml(dict(settings)))


def is_prompt_uniform(source: Source) -> bool:
    """Whether all tokens of the prompt have one weight."""
    found = {weight for role, weight in source.weights.items() if role in PROMPT_ROLES}
    return len(found) <= 1


def header(source: Source, framework: str, notes: list[str]) -> list[str]:
    """Lines of a comment: what it is, why this weight, and what to know."""
    plw = source.config.loss.prompt_loss_weight
    return [
        f"{framework}: prompt loss weight {plw:g}, written by plw export.",
        " ".join(source.reason.split()),
        *(f"- {note}" for note in notes),
    ]
