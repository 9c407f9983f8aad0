"""Load a training recipe, and export it to one of the supported frameworks."""

from pathlib import Path

import numpy as np

from orchestrator.export.axolotl import export_axolotl
from orchestrator.export.base import Export, Framework, Recipe
from orchestrator.export.ms_swift import export_swift
from orchestrator.export.trl import export_trl
from trainers.config import TrainConfig
from trainers.data.roles import Role
from trainers.data.tokenize import as_trained, encode_examples, read_split
from trainers.data.tokenized import EncodedExamples
from trainers.foundation.errors import InputError, Problem
from trainers.loss_config import LossConfig
from trainers.models.loading import load_tokenizer, resolve_model_path
from trainers.token_weights import token_weights

_EXPORTERS = {"trl": export_trl, "axolotl": export_axolotl, "ms-swift": export_swift}


def load_recipe(config: TrainConfig, *, reason: str, num_workers: int) -> Recipe:
    """Return the recipe of `config` with its training data, without the held-out examples.

    Raises:
        InputError: the model or the data cannot be read, or the global batch cannot be divided
            among the workers.
    """
    tokenizer = load_tokenizer(config.model)
    train = read_split(config.data).train
    examples = encode_examples(train, config.data, tokenizer)
    examples_per_worker, rest = divmod(config.batch.global_batch_size, num_workers)
    if rest or not examples_per_worker:
        raise InputError(
            Problem(
                message=(
                    f"--workers must divide batch.global_batch_size"
                    f" {config.batch.global_batch_size}, got {num_workers}"
                ),
                fix="give another number, or --set batch.global_batch_size",
            )
        )
    micro_batch_size = max(
        n for n in range(1, config.batch.micro_batch_size + 1) if examples_per_worker % n == 0
    )
    return Recipe(
        config=config,
        reason=reason,
        model_path=resolve_model_path(config.model.path),
        tokenizer=tokenizer,
        train=as_trained(train, config.data),
        examples=examples,
        weights=_weights_by_role(examples, config.loss),
        num_workers=num_workers,
        micro_batch_size=micro_batch_size,
        accumulation_steps=examples_per_worker // micro_batch_size,
    )


def _weights_by_role(examples: EncodedExamples, loss: LossConfig) -> dict[Role, frozenset[float]]:
    found: dict[Role, set[float]] = {}
    for example in examples:
        weights = example.sample_weight * token_weights(example, loss)[1:]
        roles = np.asarray(example.roles)[1:]
        for role in np.unique(roles):
            found.setdefault(Role(role), set()).update(np.unique(weights[roles == role]).tolist())
    return {role: frozenset(found[role]) for role in sorted(found)}


def export_recipe(recipe: Recipe, framework: Framework, out: Path) -> Export:
    """Return the files for `framework`; the main file is for `out`, the others for its folder.

    Raises:
        InputError: the framework does not support the loss or another part of the recipe.
    """
    if recipe.config.optimizer.l2_sp > 0:
        raise InputError(
            Problem(
                message=f"{framework} has no optimizer.l2_sp",
                fix="train with plw train, or --set optimizer.l2_sp=0",
            )
        )
    if recipe.config.loss.normalization == "examples":
        raise InputError(
            Problem(
                message=f"{framework} averages over tokens, not over examples: it has no"
                " loss.normalization examples",
                fix="train with plw train, or --set loss.normalization=weights",
            )
        )
    return _EXPORTERS[framework](recipe, out)
