"""Packing: examples back to back in one row, each attending to itself alone.

Nothing is padded, so no position is computed that holds no token. The model is transformers' own;
only its attention function is replaced by one that knows where an example ends.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from trainers.foundation.errors import InputError, Problem

PACKED_ATTENTION = "plw_packed"
_LAYER_TYPES = {"full_attention", "sliding_attention"}


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: Sequence[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each of the sequences that stand back to back in one row.

    Args:
        query: (1, heads, N, head size); `key` and `value` may have fewer heads.
        sequence_lengths: their sum is N.

    Returns:
        (1, N, heads, head size), as transformers' attention functions.
    """
    if softcap is not None:
        raise ValueError("attention with a soft cap cannot be packed")
    shared_heads = key.shape[1] != query.shape[1]
    # One split for all: slices would each allocate a gradient of the whole row.
    queries, keys, values = (
        torch.split(row, list(sequence_lengths), dim=2) for row in (query, key, value)
    )
    outputs = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_window(q.shape[2], sliding_window, q.device),
            is_causal=sliding_window is None or q.shape[2] <= sliding_window,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=shared_heads,
        )
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Which of the `length` positions each one sees; None where causality alone decides."""
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    return (distance >= 0) & (distance < window)


def positions_of(sequence_lengths: Sequence[int]) -> Tensor:
    """The position of each token within its own sequence, (1, N)."""
    return torch.cat([torch.arange(length) for length in sequence_lengths])[None]


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let `model` take `sequence_lengths` in its forward pass and keep the sequences apart.

    Raises:
        InputError: the model lets them see each other, or computes them otherwise than alone.
    """
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    model.set_attn_implementation(PACKED_ATTENTION)
    types = set(getattr(model.config, "layer_types", None) or ()) - _LAYER_TYPES
    reason = f"it has layers of type {', '.join(sorted(types))}" if types else _probe(model)
    if reason is not None:
        raise InputError(
            Problem(
                message=f"batch.packing is not possible with {model.config.model_type}: {reason}",
                fix="set batch.packing to false",
            )
        )


@torch.no_grad()
def _probe(model: PreTrainedModel) -> str | None:
    """Compare two sequences packed with the same two alone; returns what is wrong, if anything."""
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    lengths = (7, 12)
    ids = torch.randint(
        0, model.get_input_embeddings().weight.shape[0], (1, sum(lengths)), generator=generator
    ).to(model.device)
    try:
        packed = hidden_states(model, ids, lengths)
        alone = torch.cat(
            [
                hidden_states(model, part, (part.shape[1],))
                for part in torch.split(ids, list(lengths), dim=1)
            ],
            dim=1,
        )
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        return str(error).splitlines()[0]
    finally:
        model.train(was_training)
    # Far above what bfloat16 rounds off, far below what a sequence in sight of another changes.
    if (packed - alone).norm() > 0.05 * alone.norm():
        return "its sequences see each other"
    return None


def hidden_states(
    model: nn.Module, input_ids_BT: Tensor, sequence_lengths: Sequence[int] | None
) -> Tensor:
    """The decoder's last hidden states, (B, T, D), of padded rows or of one packed row."""
    decoder = getattr(model, str(model.base_model_prefix))
    if sequence_lengths is None:
        # No attention mask: padding stands to the right of every example, where causal
        # attention keeps it from the tokens that count.
        padded: Tensor = decoder(input_ids=input_ids_BT, use_cache=False)[0]
        return padded
    packed: Tensor = decoder(
        input_ids=input_ids_BT,
        position_ids=positions_of(sequence_lengths).to(input_ids_BT.device),
        sequence_lengths=tuple(sequence_lengths),
        use_cache=False,
    )[0]
    return packed
