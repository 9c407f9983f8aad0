"""Generation in padded batches: prompts of similar length together, finished rows leave.

Shapes: B rows, T tokens.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from evals.engine.batching import pad, run_batches, sorted_batches
from evals.engine.loaded_model import (
    GenerationSettings,
    LoadedModel,
    OutputCallback,
    make_generation_config,
)
from evals.engine.stop_strings import StopStrings
from evals.engine.token_logprobs import check_finite
from trainers.models.layer_configs import key_value_width, layer_configs

# Finished rows are removed from a batch once their share reaches this value. Until then, a finished
# row costs as much as another row. Removing it copies the key-value cache of the other rows.
_COMPACTION_THRESHOLD = 0.25
# Rows of a batch unless the caller sets them. On a GPU, fewer if their keys and values do not fit.
MAX_ROWS_CPU, MAX_ROWS_GPU = 64, 128
# Share of the free memory of a GPU for keys and values; the rest is for activations and logits.
_CACHE_SHARE = 0.7


class PaddedBatches:
    """Generates with transformers' `generate`, batch by batch."""

    name = "padded"

    @torch.inference_mode()
    def generate(
        self,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        on_output: OutputCallback,
    ) -> None:
        """Call `on_output` once for each prompt; see `GenerationEngine`."""

        def run(batch: list[int]) -> None:
            # A batch that ran out of memory is generated again from the beginning.
            for row, output in _generate_batch(loaded, [prompts[n] for n in batch], settings):
                if batch[row] not in finished:
                    finished.add(batch[row])
                    on_output(batch[row], output)

        finished: set[int] = set()
        run_batches(self.batches(loaded, prompts, settings), run)

    def batches(
        self, loaded: LoadedModel, prompts: Sequence[list[int]], settings: GenerationSettings
    ) -> list[list[int]]:
        """Return the indices of `prompts` in batches; a batch alone is not divided further."""
        lengths = [len(prompt) for prompt in prompts]
        max_rows = settings.max_rows or _max_rows(loaded, max(lengths) + settings.max_new_tokens)
        # Two forward passes for the prompts of a batch, then one for each new token.
        forward_overhead = (2 + settings.max_new_tokens) * loaded.scorer.backbone.forward_overhead
        return sorted_batches(lengths, max_rows, forward_overhead=forward_overhead)

    def close(self) -> None:
        """Do nothing: this engine keeps nothing."""


def _max_rows(loaded: LoadedModel, num_tokens: int) -> int:
    """Return the maximum number of rows of `num_tokens` tokens on the model's device."""
    if loaded.device.type != "cuda":
        return MAX_ROWS_CPU
    torch.cuda.empty_cache()
    free_bytes, _ = torch.cuda.mem_get_info(loaded.device)
    row_bytes = num_tokens * cache_bytes_per_token(loaded.model.config, loaded.model.dtype)
    return rows_that_fit(row_bytes, free_bytes)


def rows_that_fit(row_bytes: int, free_bytes: int) -> int:
    """Return how many rows of keys and values fit into free memory: 1 to `MAX_ROWS_GPU`."""
    return max(1, min(MAX_ROWS_GPU, int(_CACHE_SHARE * free_bytes) // row_bytes))


def cache_bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Return the bytes of one token's keys and values in all layers.

    Layers with a state of constant size, which some families have, count like the others.
    """
    layers = layer_configs(config.get_text_config())
    return 2 * sum(key_value_width(layer) for layer in layers) * dtype.itemsize


class _BatchStoppingCriteria(StoppingCriteria):  # type: ignore[misc]  # transformers is not typed
    """Collects the outputs of a batch, and stops generation once enough rows have finished."""

    def __init__(self, loaded: LoadedModel, num_rows: int, stop_strings: Sequence[str]) -> None:
        self._eos_token_ids = frozenset(loaded.eos_token_ids)
        self._stop_strings = StopStrings(loaded.tokenizer, stop_strings)
        # Rows can be removed only from a state of keys and values.
        can_remove_rows = loaded.scorer.backbone.supports_cache_reuse
        self._stop_share = _COMPACTION_THRESHOLD if can_remove_rows else 1.0
        self.outputs: list[list[int]] = [[] for _ in range(num_rows)]
        self.is_finished = [False] * num_rows
        self.rows = list(range(num_rows))

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if not self.is_finished[row]:
                self.is_finished[row] = token in self._eos_token_ids
                if not self.is_finished[row]:
                    self.outputs[row].append(token)
        unfinished = [row for row in self.rows if not self.is_finished[row]]
        ended = self._stop_strings.end([self.outputs[row] for row in unfinished])
        for row, is_ended in zip(unfinished, ended, strict=True):
            self.is_finished[row] = is_ended
        finished = torch.tensor(
            [self.is_finished[row] for row in self.rows], device=input_ids.device
        )
        if int(finished.sum()) >= math.ceil(self._stop_share * len(finished)):
            finished[:] = True
        return finished


class _FiniteLogits(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed
    """Rejects logits without a largest value, for which argmax would return any token."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        check_finite(scores.amax(dim=-1))
        return scores


def _generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    settings: GenerationSettings,
) -> Iterator[tuple[int, list[int]]]:
    """Yield each row's index and output as it finishes; finished rows leave the batch."""
    model: Any = loaded.model
    prefix, remaining = loaded.scorer.backbone.prefill(prompts)
    input_ids_BT, mask_BT = pad(remaining, side="left", device=loaded.device)
    cache = None
    if prefix is not None:
        cache = prefix.cache
        mask_BT = torch.cat([prefix.mask_RT, mask_BT], dim=1)
    stopping = _BatchStoppingCriteria(loaded, len(prompts), settings.stop_strings)
    num_new = 0
    while True:
        generated = model.generate(
            input_ids_BT,
            attention_mask=mask_BT,
            past_key_values=cache,
            stopping_criteria=[stopping],
            logits_processor=[_FiniteLogits()],
            generation_config=make_generation_config(
                **{"do_sample": False, "num_beams": 1, **settings.sampling},
                max_new_tokens=settings.max_new_tokens - num_new,
                eos_token_id=loaded.eos_token_ids,
                pad_token_id=loaded.eos_token_ids[0],
                use_cache=True,
                return_dict_in_generate=True,
            ),
        )
        new_BT = generated.sequences[:, input_ids_BT.shape[1] :]
        num_new += new_BT.shape[1]
        is_last = num_new == settings.max_new_tokens
        remaining_places = [
            place
            for place, row in enumerate(stopping.rows)
            if not (is_last or stopping.is_finished[row])
        ]
        yield from (
            (row, stopping.outputs[row])
            for place, row in enumerate(stopping.rows)
            if place not in remaining_places
        )
        if not remaining_places:
            return
        stopping.rows = [stopping.rows[place] for place in remaining_places]
        chosen = torch.tensor(remaining_places, device=loaded.device)
        mask_BT = torch.cat([mask_BT, torch.ones_like(new_BT)], dim=1)[chosen]
        # The last token was generated but is not in the cache yet.
        input_ids_BT = new_BT[chosen, -1:]
        cache = generated.past_key_values
        cache.batch_select_indices(chosen)
