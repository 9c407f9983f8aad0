"""Configs of the layers of a model; some families have heads of two sizes (Gemma 4)."""

from typing import Any


def layer_configs(config: Any) -> list[Any]:
    """Return the config of each layer of a text model's config."""
    layers = config.num_hidden_layers
    differing = getattr(config, "per_layer_config", None)
    return [differing[i] for i in range(layers)] if differing else [config] * layers


def head_size(layer: Any) -> int:
    """Return the number of elements of an attention head in a layer with this config."""
    return int(getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
