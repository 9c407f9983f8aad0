"""Configs of the layers of a model, which may differ: Gemma 4 has heads of two sizes.

Such a config raises an error if a value that differs is read from the config of the whole model.
"""

from typing import Any


def layer_configs(config: Any) -> list[Any]:
    """Return the config of each layer of a text model; empty without a number of layers."""
    layers = getattr(config, "num_hidden_layers", None) or 0
    differing = getattr(config, "per_layer_config", None)
    return [differing[i] for i in range(layers)] if differing else [config] * layers


def attention_width(layer: Any) -> int:
    """Return heads x head size of a layer with this config."""
    return int(layer.num_attention_heads) * _head_size(layer)


def key_value_width(layer: Any) -> int:
    """Return key-value heads x head size of a layer with this config."""
    heads = getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads
    return int(heads) * _head_size(layer)


def _head_size(layer: Any) -> int:
    return int(getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
