"""Generation with transformers' continuous batching: paged keys and values, no padding.

A finished output makes room for the next prompt at once. Shared beginnings of prompts are computed
once where a model's layers allow it.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, PreTrainedModel
from transformers.generation.continuous_batching.utils import WorkloadHints
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from evals.engine.loaded_model import (
    GenerationSettings,
    LoadedModel,
    OutputCallback,
    make_generation_config,
)
from evals.engine.stop_strings import StopStrings
from evals.engine.token_logprobs import check_finite
from trainers.foundation.errors import InputError, Problem, TrainingError

_LAYER_TYPES = {"full_attention", "sliding_attention"}
# Tokens in a page of keys and values, and in a forward pass, on a CPU. The whole cache is allocated
# at once; on a GPU, transformers sizes it by the free memory.
_PAGE_SIZE_CPU = 64
_BATCH_TOKENS_CPU = 4096
# Without flash attention, each new token is compared with the keys of all outputs, so more outputs
# at once cost more for each of them.
_MAX_ROWS, _MAX_ROWS_FLASH = 64, 512
_POLL_S = 1.0
_SETTINGS = inspect.signature(ContinuousBatchingConfig).parameters


class ContinuousBatches:
    """Generates with transformers' `ContinuousBatchingManager`, which runs in a thread."""

    name = "continuous"

    def generate(
        self,
        loaded: LoadedModel,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        on_output: OutputCallback,
    ) -> None:
        """Call `on_output` once for each prompt; see `GenerationEngine`."""
        stop_strings = StopStrings(loaded.tokenizer, settings.stop_strings)
        eos_token_ids = frozenset(loaded.eos_token_ids)
        with _manager(loaded, prompts, settings) as manager:
            # Equal beginnings are shared with earlier requests, so similar prompts follow each
            # other.
            pending = {
                manager.add_request(prompts[place], streaming=bool(stop_strings)): place
                for place in sorted(range(len(prompts)), key=prompts.__getitem__)
            }
            while pending:
                result = _next_result(manager)
                place = pending.get(result.request_id)
                if place is None:  # A request that was cancelled at its stop string.
                    continue
                check_finite(torch.tensor(result.logprobs))
                output = result.generated_tokens
                is_finished = result.is_finished()
                if output and output[-1] in eos_token_ids:
                    output = output[:-1]
                elif not is_finished and stop_strings.end([output])[0]:
                    manager.cancel_request(result.request_id)
                    is_finished = True
                if is_finished:
                    del pending[result.request_id]
                    on_output(place, output)

    def close(self) -> None:
        """Do nothing: keys and values are released after each call."""


def continuous_problem(model: PreTrainedModel) -> str | None:
    """Return why continuous batching cannot run a model; None if it can."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not layer_types <= _LAYER_TYPES:
        return f"its layers are of type {', '.join(sorted(layer_types - _LAYER_TYPES))}"
    if not getattr(model, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    if getattr(config, "attn_logit_softcapping", None) and not _has_flash_attention():
        return "it caps attention logits, which needs flash attention"
    return None


def check_continuous(model: PreTrainedModel) -> None:
    """Check that continuous batching can run a model.

    Raises:
        InputError: it cannot.
    """
    problem = continuous_problem(model)
    if problem is not None:
        raise InputError(
            Problem(
                message=f"continuous batching cannot run {type(model).__name__}: {problem}",
                where="evals.engine",
                fix="set evals.engine to padded or auto",
            )
        )


@contextmanager
def _manager(
    loaded: LoadedModel, prompts: Sequence[list[int]], settings: GenerationSettings
) -> Iterator[Any]:
    """Yield a running manager; its thread ends and its memory is released with the block."""
    model: Any = loaded.model
    on_gpu = loaded.device.type == "cuda"
    longest = max(map(len, prompts))
    has_flash = on_gpu and _has_flash_attention()
    limit = settings.max_rows or (_MAX_ROWS_FLASH if has_flash else _MAX_ROWS)
    max_rows = min(len(prompts), limit)
    size: dict[str, Any] = {}
    if not on_gpu:
        pages_per_row = math.ceil((longest + settings.max_new_tokens) / _PAGE_SIZE_CPU) + 1
        size = {
            # transformers 5.17 calls it block_size.
            "page_size" if "page_size" in _SETTINGS else "block_size": _PAGE_SIZE_CPU,
            "num_blocks": max_rows * pages_per_row,
            "max_batch_tokens": _BATCH_TOKENS_CPU,
        }
    manager = model.init_continuous_batching(
        generation_config=make_generation_config(
            do_sample=False,
            num_beams=1,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=loaded.eos_token_ids,
            pad_token_id=loaded.eos_token_ids[0],
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            max_requests_per_batch=max_rows,
            # The only way to notice logits that are not finite. The tokens stay the same, except
            # for two logits whose probabilities are equal in float32.
            return_logprobs=True,
            # Otherwise, flash attention may be downloaded from the hub. transformers 5.17 has no
            # such setting; it downloads only if the package `kernels` is installed.
            **({"auto_switch_to_flash": has_flash} if "auto_switch_to_flash" in _SETTINGS else {}),
            **size,
        ),
        workload_hints=WorkloadHints(
            max_prompt_length=longest,
            max_generated_length=settings.max_new_tokens,
            num_requests=len(prompts),
        ),
    )
    try:
        if on_gpu:
            manager.warmup()
        manager.start()
        yield manager
    finally:
        manager.stop(block=True, hard_stop=True)


def _next_result(manager: Any) -> Any:
    """Return the next result of the manager.

    Raises:
        TrainingError: its thread has ended, or the request has failed.
    """
    while (result := manager.get_result(timeout=_POLL_S)) is None:
        if not manager.is_running():
            raise _failure(manager.background_thread_status.fatal_error or "its thread has ended")
    if result.error is not None:
        raise _failure(result.error)
    return result


def _failure(reason: object) -> TrainingError:
    return TrainingError(f"continuous batching failed: {reason}; evals.engine: padded avoids it")


def _has_flash_attention() -> bool:
    return bool(is_flash_attn_2_available() or is_flash_attn_3_available())
