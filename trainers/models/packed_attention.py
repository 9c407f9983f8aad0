"""Packed attention: examples are concatenated in one row, and each attends only to itself.

Packing avoids padding, so every computed position is a token. The transformers model is unchanged
except for its attention function, which receives the lengths of the examples. In bfloat16 on a GPU,
one call of torch's `varlen_attn` computes a layer; elsewhere, a loop calls SDPA for each example.
"""

import inspect
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from trainers.foundation.errors import InputError, Problem

varlen_attn: Any = None
with suppress(ImportError):  # Older releases of torch have none.
    from torch.nn.attention import varlen

    varlen_attn = varlen.varlen_attn

log = logging.getLogger(__name__)

PACKED_ATTENTION = "plw_packed"
# The largest head size of flash attention.
_MAX_HEAD_SIZE = 256
_LAYER_TYPES = {"full_attention", "sliding_attention"}
# Two sequences for the check of packing, and a sliding window that both of them exceed.
_CHECKED_LENGTHS = (7, 12)
PROBED_WINDOW = 4


class RowLengths:
    """The lengths of the sequences in a row, passed through the model as one opaque object.

    torch.compile checks every number in a tuple, and would compile the layers again for each row.
    """

    def __init__(self, values: Sequence[int]) -> None:
        self.values = tuple(values)


# torch.compile would unroll the loop for each row.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: RowLengths,
    sequence_starts: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute causal attention within each of the sequences that are concatenated in one row.

    Args:
        query: (1, heads, N, head size); `key` and `value` may have fewer heads.
        sequence_lengths: of the sequences; their sum is N.
        sequence_starts: the start of each sequence and N, int32, where `varlen_attn` can be used.

    Returns:
        (1, N, heads, head size), and None in place of the attention weights, in the format of
            transformers' attention functions.
    """
    if softcap is not None:
        raise ValueError("attention with a soft cap cannot be packed")
    if s_aux is not None:
        raise ValueError("attention with sinks cannot be packed")
    if sequence_starts is not None and dropout == 0.0 and query.shape[-1] <= _MAX_HEAD_SIZE:
        longest = max(sequence_lengths.values)
        row = _varlen(query, key, value, sequence_starts, longest, scaling, sliding_window)
        return row, None
    shared_heads = key.shape[1] != query.shape[1]
    # Use torch.split, because each slice would allocate a gradient of the whole row.
    queries, keys, values = (
        torch.split(row, list(sequence_lengths.values), dim=2) for row in (query, key, value)
    )
    outputs = [
        scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_sliding_window_mask(q.shape[2], sliding_window, q.device),
            is_causal=sliding_window is None or q.shape[2] <= sliding_window,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=shared_heads,
        )
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sequence_starts: Tensor,
    longest: int,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """Return what `packed_attention` returns, from one kernel for all sequences."""
    q, k, v = (heads[0].transpose(0, 1) for heads in (query, key, value))
    # A window of w positions includes the position itself.
    left = -1 if sliding_window is None or longest <= sliding_window else sliding_window - 1
    # torch 2.11 has no such argument: its kernel takes fewer heads of keys as they are.
    grouped = {"enable_gqa": True} if "enable_gqa" in _varlen_parameters() else {}
    output: Tensor = varlen_attn(
        *(q, k, v, sequence_starts, sequence_starts, longest, longest),
        scale=scaling,
        window_size=(left, 0),
        **grouped,
    )
    return output[None]


@cache
def _varlen_parameters() -> frozenset[str]:
    return frozenset(inspect.signature(varlen_attn).parameters)


@cache
def varlen_is_usable(device: torch.device) -> bool:
    """Return whether `varlen_attn` gives the results of the loop on a GPU, with its gradients.

    Compared on a small case with grouped heads and a window, whose support depends on the release
    of torch and on the GPU.
    """
    if varlen_attn is None or device.type != "cuda":
        return False
    lengths, window = (5, 40, 19), 8
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 4, 64, 64), (1, 2, 64, 64), (1, 2, 64, 64))
    inputs = [torch.randn(s, generator=generator).to(device, torch.bfloat16) for s in shapes]
    scale = torch.randn(1, 64, 4, 64, generator=generator).to(device)

    def results(**settings: Any) -> list[Tensor]:
        q, k, v = (tensor.clone().requires_grad_() for tensor in inputs)
        output, _ = packed_attention(
            nn.Identity(), q, k, v, None, sequence_lengths=RowLengths(lengths), **settings
        )
        gradients = torch.autograd.grad((output * scale).sum(), (q, k, v))
        return [output.detach(), *gradients]

    try:
        with torch.enable_grad():
            pairs = [
                pair
                for sliding_window in (None, window)
                for pair in zip(
                    results(sliding_window=sliding_window),
                    results(
                        sliding_window=sliding_window,
                        sequence_starts=_sequence_starts(lengths, device),
                    ),
                    strict=True,
                )
            ]
        # bfloat16 rounds to 0.4%; a wrong window or head differs by tens of percent.
        usable = all((a - b).norm() <= 0.02 * a.norm() for a, b in pairs)
        reason = "its results differ"
    except (RuntimeError, TypeError, ValueError) as error:
        usable, reason = False, str(error).splitlines()[0]
    if not usable:
        log.warning("packing calls attention for each example: varlen_attn fails, %s", reason)
    return usable


def _sequence_starts(lengths: Sequence[int], device: torch.device) -> Tensor:
    starts = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    starts[1:] = torch.tensor(lengths).cumsum(0)
    return _to_device(starts, device)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a copy on `device`; on a GPU, the CPU does not wait for it.

    A copy from memory that is not pinned may wait for all kernels that are queued.
    """
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def _sliding_window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """Return the mask of the visible positions for each position; None if it is only causal."""
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    return (distance >= 0) & (distance < window)


def position_ids(sequence_lengths: Sequence[int]) -> Tensor:
    """Return the position of each token in its sequence: (1, N)."""
    return torch.cat([torch.arange(length) for length in sequence_lengths])[None]


def enable_packed_attention(model: PreTrainedModel, probes: Sequence[PreTrainedModel] = ()) -> None:
    """Make the forward pass of `model` accept `sequence_lengths` and separate the sequences.

    Args:
        probes: small models of the same class to check in place of `model`, whose weights may be
            on other ranks, and whose sliding window may be longer than the checked sequences.

    Raises:
        InputError: the model does not separate the sequences, or its results differ from unpacked
            ones.
    """
    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    types = set(getattr(model.config, "layer_types", None) or ()) - _LAYER_TYPES
    if types:
        reason: str | None = f"it has layers of type {', '.join(sorted(types))}"
    else:
        reasons = [_check_separation(each) for each in probes or (model,)]
        reason = next((one for one in reasons if one is not None), None)
        model.set_attn_implementation(PACKED_ATTENTION)
    if reason is not None:
        raise InputError(
            Problem(
                message=f"batch.packing does not support {model.config.model_type}: {reason}",
                fix="set batch.packing to false",
            )
        )


@torch.no_grad()
def _check_separation(model: PreTrainedModel) -> str | None:
    """Compare two packed sequences with the model's own attention to each of them alone.

    Return the problem, if any. Afterwards, the model's attention is the packed one.
    """
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    lengths = _CHECKED_LENGTHS
    ids = torch.randint(
        0, model.get_input_embeddings().weight.shape[0], (1, sum(lengths)), generator=generator
    ).to(model.device)
    try:
        alone = torch.cat(
            [hidden_states(model, part, None) for part in torch.split(ids, list(lengths), dim=1)],
            dim=1,
        )
        model.set_attn_implementation(PACKED_ATTENTION)
        packed = hidden_states(model, ids, lengths)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        return str(error).splitlines()[0]
    finally:
        model.train(was_training)
    # The limits are far above the data type's rounding, and far below the effect of attention to
    # the other sequence, or of a part of the model's own attention that the packed one lacks.
    limit = 1e-3 if alone.dtype == torch.float32 else 0.05
    if (packed - alone).norm() > limit * alone.norm():
        return "packed sequences do not give the results of its own attention"
    return None


def hidden_states(
    model: nn.Module, input_ids_BT: Tensor, sequence_lengths: Sequence[int] | None
) -> Tensor:
    """Return the decoder's last hidden states (B, T, D), of padded rows or of one packed row."""
    # Llama 4 has a prefix that only its multimodal class uses.
    prefix = str(model.base_model_prefix)
    decoder = getattr(model, prefix if hasattr(model, prefix) else "model")
    if sequence_lengths is None:
        # No attention mask is needed: padding is to the right of each example, so causal attention
        # hides it from all tokens.
        padded: Tensor = decoder(input_ids=input_ids_BT, use_cache=False)[0]
        return padded
    device = input_ids_BT.device
    # Float32 has no flash attention.
    uses_varlen = decoder.dtype == torch.bfloat16 and varlen_is_usable(device)
    packed: Tensor = decoder(
        input_ids=input_ids_BT,
        position_ids=_to_device(position_ids(sequence_lengths), device),
        sequence_lengths=RowLengths(sequence_lengths),
        sequence_starts=_sequence_starts(sequence_lengths, device) if uses_varlen else None,
        use_cache=False,
    )[0]
    return packed
