"""Read tokens with a model and keep what it remembers, so that nothing is read twice.

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

# What a pass through the model costs besides its tokens, in tokens. On two CPU cores and with
# 135 million parameters a pass takes 45 ms and 1.3 ms a token; a GPU is idle for a long time
# before tokens begin to count.
PASS_COST_CPU = 40
PASS_COST_GPU = 4096


@dataclass(frozen=True, kw_only=True)
class Context:
    """What R rows have read so far: keys and values, which of them count, the last hidden state."""

    cache: DynamicCache
    mask_RT: Tensor
    last_hidden_RH: Tensor

    def repeated(self, repeats: int) -> "Context":
        """This context with each row `repeats` times in a row; this one stays as it is."""
        num_rows = len(self.mask_RT)
        return self.rows([row for row in range(num_rows) for _ in range(repeats)])

    def rows(self, rows: Sequence[int]) -> "Context":
        """A context of these rows of this one, which stays as it is; a row may come again."""
        # Layers replace their tensors and never write into them, so copies can share them.
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        chosen = torch.tensor(rows, device=self.mask_RT.device)
        cache.batch_select_indices(chosen)
        return Context(
            cache=cache,
            mask_RT=self.mask_RT[chosen],
            last_hidden_RH=self.last_hidden_RH[chosen],
        )


class Reader:
    """Runs a model without its output embedding.

    `keeps_context` says that what the model remembers is keys and values alone, so that rows can
    be copied and read on. `gaps_allowed` says that padding may also stand between two readings
    of a row: where a mask and positions are all that a model goes by. A sliding window counts
    places, and older families keep biases by place, so gaps would shift those.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.pass_cost = PASS_COST_CPU if model.device.type == "cpu" else PASS_COST_GPU
        self.base: Any = model.base_model
        # Models that take no positions make them from the mask, or have none.
        self._takes_positions = "position_ids" in inspect.signature(self.base.forward).parameters
        layers = self._layers()
        self.keeps_context = bool(layers) and all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
        )
        self.gaps_allowed = (
            self.keeps_context
            and all(type(layer) is DynamicLayer for layer in layers)
            and self._takes_positions
            # Set by the families whose masks all come from transformers' masking functions.
            and bool(getattr(model, "_supports_attention_backend", False))
        )

    def read(
        self, input_ids_RT: Tensor, mask_RT: Tensor, context: Context | None = None
    ) -> tuple[Tensor, Context]:
        """Hidden states (R, T, H) of tokens behind `context`, and the context behind them.

        The rows end in a token, that is, they are padded on their left if at all, when the
        returned context is to be read on. Only where `keeps_context`.
        """
        if context is not None:
            mask_RT = torch.cat([context.mask_RT, mask_RT], dim=1)
        output = self.base(
            input_ids=input_ids_RT,
            attention_mask=mask_RT,
            past_key_values=None if context is None else context.cache,
            use_cache=True,
            **self._positions(mask_RT, input_ids_RT.shape[1]),
        )
        hidden_RTH: Tensor = output.last_hidden_state
        after = Context(
            cache=output.past_key_values, mask_RT=mask_RT, last_hidden_RH=hidden_RTH[:, -1]
        )
        return hidden_RTH, after

    def hidden_states(self, input_ids_RT: Tensor, mask_RT: Tensor) -> Tensor:
        """Hidden states (R, T, H), remembering nothing: for any model."""
        hidden_RTH: Tensor = self.base(
            input_ids=input_ids_RT, attention_mask=mask_RT, use_cache=False
        ).last_hidden_state
        return hidden_RTH

    def read_beginning(self, sequences: Sequence[list[int]]) -> tuple[Tensor, Context] | None:
        """Hidden states (1, T, H) and context (one row) of the tokens all `sequences` begin with.

        None where there are too few to be worth it. At least one token of each sequence is left.
        """
        beginning = common_beginning([ids[:-1] for ids in sequences])
        saved = len(beginning) * (len(sequences) - 1)
        if not self.keeps_context or saved <= self.pass_cost:
            return None
        return self.read(*pad([beginning], side="right", device=self.model.device))

    def begin(self, prompts: Sequence[list[int]]) -> tuple[Context | None, list[list[int]]]:
        """A context of one row per prompt with what they all begin with, and what is left to read.

        The context is None, and all is left to read, where sharing is not possible or not worth
        it. The rest may be padded on its left.
        """
        begun = self.read_beginning(prompts) if self.gaps_allowed else None
        if begun is None:
            return None, list(prompts)
        hidden_1TH, context = begun
        return context.repeated(len(prompts)), [ids[hidden_1TH.shape[1] :] for ids in prompts]

    def _positions(self, mask_RT: Tensor, num_tokens: int) -> dict[str, Tensor]:
        if not self._takes_positions:
            return {}
        return {"position_ids": (mask_RT.cumsum(dim=1) - 1).clamp(min=0)[:, -num_tokens:]}

    @torch.inference_mode()
    def _layers(self) -> list[Any]:
        output = self.base(
            input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.model.device), use_cache=True
        )
        cache = getattr(output, "past_key_values", None)
        return list(cache.layers) if isinstance(cache, DynamicCache) else []


def common_beginning(sequences: Sequence[list[int]]) -> list[int]:
    """The longest run of tokens that all `sequences` begin with."""
    # What the least and the greatest begin with, all between them begin with.
    low, high = min(sequences), max(sequences)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), None)
    return low[: min(len(low), len(high)) if length is None else length]
