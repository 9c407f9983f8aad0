"""Section: what compiled layers, fused kernels and 8-bit moments change in a training step."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Literal

import torch
from transformers import PreTrainedModel

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.gradients import MAX_LENGTH, PLW, TOLERANCE, cpu_model, engine_gradients
from benchmarks.gpu.models import SHAPES, Lengths, random_examples, random_model
from benchmarks.gpu.reference import reference_gradient, relative_error
from benchmarks.gpu.speed import Size, sizes, step_examples
from trainers.config import BatchConfig, OptimizerConfig
from trainers.data.roles import EncodedExample
from trainers.deepspeed_config import DeepSpeedConfig
from trainers.engine.ranks import join_ranks
from trainers.engine.zero import ZeroEngine
from trainers.loss import WeightedPromptLM
from trainers.loss_config import LossConfig
from trainers.models.compiled_layers import compile_layers
from trainers.models.fused_kernels import apply_fused_kernels, why_not_fused
from trainers.models.packed_attention import enable_packed_attention
from trainers.step import accumulate_gradient

TIMED_STEPS = 3


def _unchanged(model: PreTrainedModel) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A change of the step; `why_not` returns the reason why this machine cannot have it."""

    name: str
    prepare: Callable[[PreTrainedModel], object] = _unchanged
    state_bits: Literal[8, 32] = 32
    why_not: Callable[[torch.device], str | None] = lambda device: None


def _no_bitsandbytes(device: torch.device) -> str | None:
    return None if find_spec("bitsandbytes") else "not installed: bitsandbytes"


# All shapes are Llama's.
OPTIONS = (
    Option(name="none"),
    Option(name="model.compile_layers", prepare=compile_layers),
    Option(
        name="model.fused_kernels",
        prepare=lambda model: apply_fused_kernels(model, "auto", join_ranks().device),
        why_not=lambda device: why_not_fused("auto", device, "llama"),
    ),
    Option(
        name="optimizer.state_bits 8",
        state_bits=8,
        why_not=_no_bitsandbytes,
    ),
)


def measure_options(bench: Bench) -> Iterator[Row]:
    """Yield a row for each option: the error of its gradient, and its step at PLW 0, packed."""
    base: Row | None = None
    shape = "tiny" if bench.is_small else "test"
    lengths = Lengths(prompt=40, completion=25, longest=MAX_LENGTH)
    examples = random_examples(8 if bench.is_small else 24, lengths, SHAPES[shape]["vocab_size"])
    reference = reference_gradient(cpu_model(shape, "bfloat16", is_lora=False), examples, PLW)
    for option in OPTIONS:
        row: Row = {"option": option.name}
        reason = "time" if bench.is_late() else option.why_not(bench.device)
        if reason is not None:
            yield {**row, "skipped": reason}
            continue
        try:
            gradients = engine_gradients(
                shape, "bfloat16", 2, "packed", examples, join_ranks(), prepare=option.prepare
            )
            error, limit = relative_error(gradients, reference), TOLERANCE["bfloat16"]
            row |= {"relative error": error, "limit": limit, "passed": error <= limit}
            row |= _measure_step(bench, sizes(bench)[0], option)
            if base is not None:
                row["time over none"] = row["s/step"] / base["s/step"]
            base = base or row
        except Exception as error:  # The other options may run.
            traceback.print_exc()
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        yield row
        bench.release_memory()


def _measure_step(bench: Bench, size: Size, option: Option) -> Row:
    ranks = join_ranks()
    model = random_model(size.shape, torch.bfloat16, bench.device)
    enable_packed_attention(model)
    option.prepare(model)
    engine = ZeroEngine(
        WeightedPromptLM(model).train(),
        optimizer=OptimizerConfig(state_bits=option.state_bits),
        deepspeed_config=DeepSpeedConfig(),
        ranks=ranks,
        micro_batch_size=1,
    )
    examples = step_examples(bench, size, "short")
    step = partial(_step, engine, examples, size)
    try:
        started = time.monotonic()
        step()
        bench.synchronize()
        first = time.monotonic() - started
        memory = bench.peak_bytes(step)
        seconds = bench.seconds(step, repeats=TIMED_STEPS, warm_ups=0)
    finally:
        engine.destroy()
    return {
        "model": size.shape,
        "tokens/s": sum(len(example.input_ids) for example in examples) / seconds,
        "peak memory, GB": memory / 1e9,
        "s/step": seconds,
        "first step, s": first,
    }


def _step(engine: ZeroEngine, examples: Sequence[EncodedExample], size: Size) -> None:
    accumulate_gradient(
        engine,
        examples,
        loss=LossConfig(prompt_loss_weight=0.0),
        batch=BatchConfig(
            micro_batch_size=size.num_examples, packing=True, max_tokens=size.max_tokens
        ),
        max_length=size.max_tokens,
        pad_token_id=0,
    )
    engine.step(1e-6)
