"""Section: tokens per second, MFU and peak memory of training steps."""

import itertools
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import torch

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.models import (
    LENGTHS,
    SHAPES,
    TINY_LENGTHS,
    Completions,
    random_examples,
    random_model,
)
from trainers.config import BatchConfig, OptimizerConfig
from trainers.data.roles import EncodedExample
from trainers.deepspeed_config import DeepSpeedConfig
from trainers.engine.performance import ModelFlops, model_flops, peak_flops
from trainers.engine.ranks import join_ranks
from trainers.engine.zero import ZeroEngine
from trainers.loss import WeightedPromptLM
from trainers.loss_config import LossConfig
from trainers.models.packed_attention import PACKED_ATTENTION, enable_packed_attention
from trainers.step import BatchLoss, accumulate_gradient

PLWS = (0.0, 0.1)
MAX_SLOWDOWN = 1.15
TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's step. `min_mfu` is the target of packed rows, None for a shape without one."""

    shape: str
    num_examples: int
    max_tokens: int
    min_mfu: float | None = None


# The most valuable first.
SIZES = (
    Size(shape="1B", num_examples=64, max_tokens=16384, min_mfu=0.40),
    Size(shape="7B, 16 layers", num_examples=48, max_tokens=8192, min_mfu=0.45),
    Size(shape="135M", num_examples=128, max_tokens=32768),
)
TINY_SIZE = Size(shape="tiny", num_examples=8, max_tokens=128)


def sizes(bench: Bench) -> tuple[Size, ...]:
    return (TINY_SIZE,) if bench.is_small else SIZES


def step_examples(bench: Bench, size: Size, completions: Completions) -> list[EncodedExample]:
    """Return the examples of one step."""
    lengths = (TINY_LENGTHS if bench.is_small else LENGTHS)[completions]
    return random_examples(size.num_examples, lengths, SHAPES[size.shape]["vocab_size"])


def measure_speed(bench: Bench) -> Iterator[Row]:
    """Yield a row for each model, layout, length of completions and PLW."""
    for size in sizes(bench):
        if bench.is_late():
            yield {"model": size.shape, "skipped": "time"}
            continue
        try:
            yield from _rows(bench, size)
        except Exception as error:  # The other models may run, for example in less memory.
            traceback.print_exc()
            yield {"model": size.shape, "error": f"{type(error).__name__}: {error}"[:300]}
        bench.release_memory()


def _rows(bench: Bench, size: Size) -> Iterator[Row]:
    ranks = join_ranks()
    model = random_model(size.shape, torch.bfloat16, bench.device)
    flops = model_flops(model)
    enable_packed_attention(model)
    engine = ZeroEngine(
        WeightedPromptLM(model).train(),
        optimizer=OptimizerConfig(),
        deepspeed_config=DeepSpeedConfig(),
        ranks=ranks,
        micro_batch_size=1,
    )
    peak = peak_flops(ranks.device_name, torch.bfloat16)
    try:
        for layout, completions in itertools.product(("packed", "padded"), get_args(Completions)):
            model.set_attn_implementation(PACKED_ATTENTION if layout == "packed" else "sdpa")
            examples = step_examples(bench, size, completions)
            base: Row | None = None
            for plw in PLWS:
                cell = {"model": size.shape, "layout": layout, "completions": completions}
                if bench.is_late():
                    yield {**cell, "PLW": plw, "skipped": "time"}
                    continue
                measured = _measure(bench, engine, examples, size, plw, layout, flops, peak)
                row = {**cell, "PLW": plw, **measured}
                yield {**row, **_targets(row, base, size)}
                base = base or row
    finally:
        engine.destroy()


def _measure(
    bench: Bench,
    engine: ZeroEngine,
    examples: Sequence[EncodedExample],
    size: Size,
    plw: float,
    layout: str,
    flops: ModelFlops | None,
    peak: float | None,
) -> Row:
    losses: list[BatchLoss] = []

    def step() -> None:
        losses.append(
            accumulate_gradient(
                engine,
                examples,
                loss=LossConfig(prompt_loss_weight=plw),
                batch=BatchConfig(
                    micro_batch_size=size.num_examples,
                    packing=layout == "packed",
                    max_tokens=size.max_tokens,
                ),
                max_length=size.max_tokens,
                pad_token_id=0,
            )
        )
        engine.step(1e-6)

    memory = bench.peak_bytes(step)  # Also the warm-up.
    seconds = bench.seconds(step, repeats=TIMED_STEPS, warm_ups=0)
    lengths = [len(example.input_ids) for example in examples]
    assert flops is not None
    num_flops = flops.of_step(lengths, losses[-1].num_weighted_tokens)
    return {
        "tokens/s": sum(lengths) / seconds,
        "MFU": None if peak is None else num_flops / seconds / peak,
        "peak memory, GB": memory / 1e9,
        "s/step": seconds,
        "tokens/step": sum(lengths),
        "TFLOP/step": num_flops / 1e12,
    }


def _targets(row: Row, base: Row | None, size: Size) -> Row:
    """Return the row's targets; `base` is the same cell at PLW 0, None for that row itself."""
    targets: dict[str, bool] = {}
    if size.min_mfu is not None and row["layout"] == "packed" and row["MFU"] is not None:
        targets[f"MFU >= {size.min_mfu:.0%}"] = row["MFU"] >= size.min_mfu
    if base is None:
        slowdown = {}
    else:
        slowdown = {
            "time over PLW 0": row["s/step"] / base["s/step"],
            "FLOP over PLW 0": row["TFLOP/step"] / base["TFLOP/step"],
        }
        # On a tiny model, the time says nothing.
        if row["MFU"] is not None:
            met = slowdown["time over PLW 0"] <= MAX_SLOWDOWN
            targets[f"time over PLW 0 <= {MAX_SLOWDOWN}"] = met
    if not targets:
        return slowdown
    return {**slowdown, "target": "; ".join(targets), "passed": all(targets.values())}
