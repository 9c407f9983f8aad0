"""Prefix caching: process shared tokens once and reuse their keys and values.

Shapes: R rows, T tokens, H hidden size.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from evals.engine.batching import pad

# The fixed cost of a forward pass, in tokens. With 135 million parameters on two CPU cores, a pass
# takes 45 ms plus 1.3 ms per token. On a GPU, the fixed cost exceeds the cost of many tokens.
FORWARD_OVERHEAD_CPU = 40
FORWARD_OVERHEAD_GPU = 4096


@dataclass(frozen=True, kw_only=True)
class PrefixCache:
    """State of R rows after their tokens so far: keys and values, mask, last hidden state."""

    cache: DynamicCache
    mask_RT: Tensor
    last_hidden_RH: Tensor

    def repeat_interleave(self, repeats: int) -> "PrefixCache":
        """Return a new cache in which each row is repeated `repeats` times, copies adjacent."""
        num_rows = len(self.mask_RT)
        return self.select_rows([row for row in range(num_rows) for _ in range(repeats)])

    def select_rows(self, rows: Sequence[int]) -> "PrefixCache":
        """Return a new cache of the given rows, in this order; rows may repeat."""
        # Layers replace their tensors and never write into them, so copies can share the tensors.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        chosen = torch.tensor(rows, device=self.mask_RT.device)
        cache.batch_select_indices(chosen)
        return PrefixCache(
            cache=cache,
            mask_RT=self.mask_RT[chosen],
            last_hidden_RH=self.last_hidden_RH[chosen],
        )


class Backbone:
    """A model without its output embedding, with key-value caching of shared prefixes.

    `supports_cache_reuse`: the model's state consists only of keys and values, so rows of a cache
    can be copied and continued.

    `supports_padding_gaps`: padding is also allowed between the cached and the new tokens of a row,
    because the model depends only on the mask and the positions. Sliding windows and the attention
    biases of older families depend on the index in the row, which gaps would shift.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        on_cpu = model.device.type == "cpu"
        self.forward_overhead = FORWARD_OVERHEAD_CPU if on_cpu else FORWARD_OVERHEAD_GPU
        self.base_model: Any = model.base_model
        # Models that accept no positions derive them from the mask, or have none.
        parameters = inspect.signature(self.base_model.forward).parameters
        self._accepts_positions = "position_ids" in parameters
        layers = self._cache_layers()
        self.supports_cache_reuse = bool(layers) and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
        )
        self.supports_padding_gaps = (
            self.supports_cache_reuse
            and all(type(layer) is DynamicLayer for layer in layers)
            and self._accepts_positions
            # This is set for families whose masks all come from transformers' masking functions.
            and bool(getattr(model, "_supports_attention_backend", False))
        )

    def forward(
        self, input_ids_RT: Tensor, mask_RT: Tensor, prefix: PrefixCache | None = None
    ) -> tuple[Tensor, PrefixCache]:
        """Return the hidden states (R, T, H) of tokens that follow `prefix`, and the new cache.

        To continue the returned cache, rows must have no padding or padding on the left. Needs
        `supports_cache_reuse`.
        """
        if prefix is not None:
            mask_RT = torch.cat([prefix.mask_RT, mask_RT], dim=1)
        output = self.base_model(
            input_ids=input_ids_RT,
            attention_mask=mask_RT,
            past_key_values=None if prefix is None else prefix.cache,
            use_cache=True,
            **self._positions(mask_RT, input_ids_RT.shape[1]),
        )
        hidden_RTH: Tensor = output.last_hidden_state
        extended = PrefixCache(
            cache=output.past_key_values, mask_RT=mask_RT, last_hidden_RH=hidden_RTH[:, -1]
        )
        return hidden_RTH, extended

    def hidden_states(self, input_ids_RT: Tensor, mask_RT: Tensor) -> Tensor:
        """Return the hidden states (R, T, H) without a cache; works for every model."""
        hidden_RTH: Tensor = self.base_model(
            input_ids=input_ids_RT, attention_mask=mask_RT, use_cache=False
        ).last_hidden_state
        return hidden_RTH

    def prefill_shared_prefix(
        self, sequences: Sequence[list[int]]
    ) -> tuple[Tensor, PrefixCache] | None:
        """Return the hidden states (1, T, H) and the cache (one row) of the shared prefix.

        None if the prefix is too short to save time. Every sequence keeps at least one token after
        the prefix.
        """
        prefix_ids = shared_prefix([ids[:-1] for ids in sequences])
        num_saved_tokens = len(prefix_ids) * (len(sequences) - 1)
        if not self.supports_cache_reuse or num_saved_tokens <= self.forward_overhead:
            return None
        return self.forward(*pad([prefix_ids], side="right", device=self.model.device))

    def prefill(self, prompts: Sequence[list[int]]) -> tuple[PrefixCache | None, list[list[int]]]:
        """Return a cache of the shared prefix, one row per prompt, and the remaining tokens.

        The cache is None and the prompts remain whole if sharing is impossible or saves no time.
        The remaining tokens may be padded on the left.
        """
        prefilled = self.prefill_shared_prefix(prompts) if self.supports_padding_gaps else None
        if prefilled is None:
            return None, list(prompts)
        hidden_1TH, prefix = prefilled
        num_prefix_tokens = hidden_1TH.shape[1]
        return prefix.repeat_interleave(len(prompts)), [ids[num_prefix_tokens:] for ids in prompts]

    def _positions(self, mask_RT: Tensor, num_tokens: int) -> dict[str, Tensor]:
        if not self._accepts_positions:
            return {}
        return {"position_ids": (mask_RT.cumsum(dim=1) - 1).clamp(min=0)[:, -num_tokens:]}

    @torch.inference_mode()
    def _cache_layers(self) -> list[Any]:
        output = self.base_model(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.model.device), use_cache=True
        )
        cache = getattr(output, "past_key_values", None)
        return list(cache.layers) if isinstance(cache, DynamicCache) else []


def shared_prefix(sequences: Sequence[list[int]]) -> list[int]:
    """Return the longest prefix of tokens that all `sequences` share."""
    # A prefix shared by the smallest and the largest sequence is shared by all sequences.
    low, high = min(sequences), max(sequences)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), None)
    return low[: min(len(low), len(high)) if length is None else length]
