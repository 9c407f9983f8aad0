"""Check a model before training: causality, logits, positions, and the weights in its files.

The checks do not read the model's weights. A small model of the same class with random weights
shows how the class computes. The headers of the safetensors files list the weights.
"""

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from trainers.foundation.errors import Problem
from trainers.models.logit_map import PLAIN_LOGITS, LogitMap, fit_logit_map
from trainers.models.packed_attention import hidden_states
from trainers.models.transformers_output import suppress_transformers_output

_NUM_LAYERS = 2
# 32 experts, because some classes choose the best two of each of eight groups.
_SMALL_SIZES = {
    "vocab_size": 512,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_local_experts": 32,
    "num_experts": 32,
    "n_routed_experts": 32,
}
_NUM_TOKENS = 16
_POSITIONS = 8
_MAX_NAMES = 5
_MAX_HIDDEN_SIZE = 1024
# Scales of the head: with one of them, the logits of random weights reach a soft cap.
_HEAD_SCALES = (1.0, 100.0)
# Both sides run the same computation and may only differ in the order of summation.
_CAUSAL_TOLERANCE = 1e-5


def find_model_problems(
    config: PretrainedConfig, *, name: str, trust_remote_code: bool = False
) -> list[Problem]:
    """Return the reasons why models of this config cannot be trained with the weighted loss.

    Args:
        name: the model's path, for the messages.
    """
    facts = _probe_class(config, trust_remote_code)
    if facts is None:
        if not trust_remote_code and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            return []  # Loading the model fails with this reason.
        return [
            Problem(
                message=f"model.path {name}: no small model of {config.model_type} can be built, so"
                " nothing shows whether it is causal and how it computes its logits",
                fix="use another model family",
            )
        ]
    problems = []
    if not facts.is_causal:
        problems.append(
            Problem(
                message=f"model.path {name}: a later token changes the predictions for earlier"
                f" ones ({config.model_type} is not a causal model)",
                fix="use a decoder-only model",
            )
        )
    elif facts.logit_map is None:
        problems.append(
            Problem(
                message=f"model.path {name}: the logits of {config.model_type} are not its output"
                " embedding times the last hidden state, with or without a scale or soft cap (there"
                " is a layer between them), which the weighted loss does not support",
                fix="use another model family",
            )
        )
    return problems


def find_logit_map(config: PretrainedConfig, trust_remote_code: bool = False) -> LogitMap:
    """Return the scale and the soft cap of the logits of models of this config.

    They are measured on a small model of the class. The result is that of a plain head if none can
    be built.
    """
    facts = _probe_class(config, trust_remote_code)
    return facts.logit_map if facts and facts.logit_map else PLAIN_LOGITS


def find_position_problems(
    config: PretrainedConfig, max_length: int, *, trust_remote_code: bool = False
) -> list[Problem]:
    """Return a problem if models of this config have fewer positions than `max_length`."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit is None or max_length <= limit:
        return []
    can_be_built = _probe_class(config, trust_remote_code) is not None
    if not can_be_built or small_model(
        config, trust_remote_code, max_position_embeddings=_POSITIONS
    ):
        return []
    return [
        Problem(
            message=f"data.max_length {max_length} exceeds the model's {limit} positions",
            fix=f"set data.max_length to {limit} or less",
        )
    ]


def find_weight_problems(folder: str, attention: str, trust_remote_code: bool) -> list[Problem]:
    """Return problems with the weights in a model's folder, found in the files' headers.

    Raises:
        Exception: transformers cannot load the model.
    """
    with suppress_transformers_output():
        _, loading_info = AutoModelForCausalLM.from_pretrained(
            folder,
            attn_implementation=attention,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # The loading info lists mismatches by name.
        )
    return weight_problems(folder, loading_info)


def weight_problems(
    path: str, loading_info: dict[str, Any], *, name: str = "model.path"
) -> list[Problem]:
    """Return the problems in `loading_info`, which transformers' from_pretrained returned.

    `name` is the setting with the path, or another name of the model.
    """
    problems = []
    for key, fault in (
        ("missing_keys", "lack weights, which would be initialized at random"),
        ("mismatched_keys", "contain weights with another shape than in the config"),
        ("error_msgs", "cannot be loaded"),
    ):
        names = sorted(
            str(item[0] if isinstance(item, tuple) else item)
            for item in loading_info.get(key) or ()
        )
        if names:
            shown = ", ".join(names[:_MAX_NAMES])
            more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
            problems.append(
                Problem(
                    message=f"{name} {path}: the files {fault}: {shown}{more}",
                    fix="save the whole model again with save_pretrained, or correct config.json",
                )
            )
    return problems


@dataclass(frozen=True)
class _ClassFacts:
    is_causal: bool
    logit_map: LogitMap | None


_FACTS: dict[str, _ClassFacts | None] = {}


def _probe_class(config: PretrainedConfig, trust_remote_code: bool) -> _ClassFacts | None:
    """Return facts about how the config's model class computes its output.

    The result is None if no small model can be built or run.
    """
    key = config.to_json_string()
    if key not in _FACTS:
        _FACTS[key] = _probe(config, trust_remote_code)
    return _FACTS[key]


def _probe(config: PretrainedConfig, trust_remote_code: bool) -> _ClassFacts | None:
    model = small_model(config, trust_remote_code)
    if model is None:
        return None
    ids_BT = torch.arange(1, _NUM_TOKENS + 1)[None]
    changed_BT = ids_BT.clone()
    changed_BT[0, -1] += 1
    _, logits_BTV = _hidden_and_logits(model, ids_BT)
    _, changed_BTV = _hidden_and_logits(model, changed_BT)
    return _ClassFacts(
        is_causal=_agree(changed_BTV[:, :-1], logits_BTV[:, :-1]),
        logit_map=_measure_logit_map(model, ids_BT),
    )


@torch.no_grad()
def _measure_logit_map(model: PreTrainedModel, ids_BT: Tensor) -> LogitMap | None:
    """Compare the products of the head with the model's logits; changes the head's weights."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return None
    if head.bias is not None:
        head.bias.normal_(generator=torch.Generator().manual_seed(0))
    products, logits = [], []
    for scale in _HEAD_SCALES:
        head.weight.mul_(scale)
        hidden_BTD, logits_BTV = _hidden_and_logits(model, ids_BT)
        products.append(head(hidden_BTD))
        logits.append(logits_BTV.float())
    return fit_logit_map(products, logits)


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).norm() <= _CAUSAL_TOLERANCE * theirs.norm())


@torch.no_grad()
def _hidden_and_logits(model: PreTrainedModel, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    logits_BTV: Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return hidden_states(model, ids_BT, None), logits_BTV


def small_model(
    config: PretrainedConfig, trust_remote_code: bool, **text_settings: int
) -> PreTrainedModel | None:
    """Return a small float32 model of the config's class that ran successfully, or None.

    Its attention is eager, which every class has and every device can run: neither causality nor
    the head depends on the implementation.

    Args:
        text_settings: replace those of the language model's config.
    """
    for shrink in (_shrink_all, _shrink_layers, _shrink_nothing):
        small = copy.deepcopy(config)
        try:
            # A composite config, such as that of a vision model, contains the language model's
            # config.
            for subconfig in {id(c): c for c in (small, small.get_text_config())}.values():
                shrink(subconfig)
            for name, value in text_settings.items():
                setattr(small.get_text_config(), name, value)
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)
                model: PreTrainedModel = AutoModelForCausalLM.from_config(
                    small,
                    dtype=torch.float32,
                    attn_implementation="eager",
                    trust_remote_code=trust_remote_code,
                ).eval()
                _hidden_and_logits(model, torch.arange(1, _NUM_TOKENS + 1)[None])
        except Exception:  # Building or running a small model can raise any error.
            continue
        return model
    return None


def _shrink_layers(config: PretrainedConfig) -> None:
    """Keep the first layer of each type, and at least two layers."""
    num_layers = getattr(config, "num_hidden_layers", None)
    types = list(getattr(config, "layer_types", None) or ())
    first = [types.index(one) for one in dict.fromkeys(types)]
    kept = first if len(first) > 1 else [0] * _NUM_LAYERS
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == num_layers:  # a value for each layer
            setattr(config, name, [value[layer] for layer in kept])
    if types:
        with suppress(AttributeError):  # Some configs derive the types from other settings.
            config.layer_types = [types[layer] for layer in kept]
    if num_layers is not None:
        config.num_hidden_layers = len(kept)
    if getattr(config, "num_kv_shared_layers", None):
        # These last layers would use the keys and values of layers that were dropped.
        config.num_kv_shared_layers = 0


def _shrink_all(config: PretrainedConfig) -> None:
    """Reduce the number of layers, and the sizes that no other size depends on."""
    _shrink_layers(config)
    for name, size in _SMALL_SIZES.items():
        if isinstance(getattr(config, name, None), int):
            setattr(config, name, min(getattr(config, name), size))
    if getattr(config, "vocab_size", None) == _SMALL_SIZES["vocab_size"]:
        config.bos_token_id = config.eos_token_id = config.pad_token_id = 0


def _shrink_nothing(config: PretrainedConfig) -> None:
    """Keep the config, but reject one that is too large to build."""
    if config.hidden_size > _MAX_HIDDEN_SIZE:
        raise ValueError("the model is too large to build at full size")
