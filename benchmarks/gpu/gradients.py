"""Section: the gradient of one step against float64, for ZeRO 1 to 3, both precisions, layouts."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.models import SHAPES, Lengths, random_examples, random_model
from benchmarks.gpu.reference import reference_gradient, relative_error
from trainers.config import BatchConfig, LoraConfig, OptimizerConfig
from trainers.data.roles import EncodedExample
from trainers.deepspeed_config import DeepSpeedConfig, Precision
from trainers.engine.ranks import Ranks, join_ranks
from trainers.engine.zero import ZeroEngine
from trainers.loss import MODEL_PREFIX, WeightedPromptLM
from trainers.loss_config import LossConfig
from trainers.models.lora import add_lora
from trainers.models.packed_attention import enable_packed_attention
from trainers.run_setup import DTYPES
from trainers.step import accumulate_gradient

Stage = Literal[1, 2, 3]

STAGES: tuple[Stage, ...] = get_args(Stage)
PLW = 0.1
MAX_LENGTH = 256
# Seen on CPUs: 5e-7 in float32 (with LoRA 2e-6), 1% in bfloat16 (with LoRA 4%). A wrong divisor or
# weight is off by more, and so are TF32's matrix products, which torch does not use by default.
TOLERANCE: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 0.1}
LAYOUTS = ("padded", "packed", "lora")


def check_gradients(bench: Bench) -> Iterator[Row]:
    """Yield the relative error of each cell."""
    ranks = join_ranks()
    shape = "tiny" if bench.is_small else "test"
    lengths = Lengths(prompt=40, completion=25, longest=MAX_LENGTH)
    examples = random_examples(8 if bench.is_small else 24, lengths, SHAPES[shape]["vocab_size"])
    for precision, is_lora in itertools.product(TOLERANCE, (False, True)):
        reference = reference_gradient(cpu_model(shape, precision, is_lora=is_lora), examples, PLW)
        layouts = [layout for layout in LAYOUTS if (layout == "lora") == is_lora]
        for stage, layout in itertools.product(STAGES, layouts):
            row = {"ZeRO": stage, "precision": precision, "layout": layout}
            if bench.is_late():
                yield {**row, "skipped": "time"}
                continue
            cell = partial(_compare, shape, precision, stage, layout, examples, ranks, reference)
            yield bench.attempt(row, cell)


def _compare(
    shape: str,
    precision: Precision,
    stage: Stage,
    layout: str,
    examples: list[EncodedExample],
    ranks: Ranks,
    reference: dict[str, Tensor],
) -> Row:
    gradients = engine_gradients(shape, precision, stage, layout, examples, ranks)
    error, limit = relative_error(gradients, reference), TOLERANCE[precision]
    return {"relative error": error, "limit": limit, "passed": error <= limit}


def cpu_model(shape: str, precision: Precision, *, is_lora: bool) -> PreTrainedModel:
    """Return the same model for the same arguments, on the CPU."""
    model = random_model(shape, DTYPES[precision], torch.device("cpu"), initializer_range=0.1)
    if is_lora:
        add_lora(model, LoraConfig(rank=4))
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            # The second factor starts at zero, where the first has no gradient.
            if ".lora_" in name:
                values = 0.1 * torch.randn(parameter.shape, generator=generator)
                parameter.data = values.to(parameter.dtype)
    return model


def engine_gradients(
    shape: str,
    precision: Precision,
    stage: Stage,
    layout: str,
    examples: list[EncodedExample],
    ranks: Ranks,
    prepare: Callable[[PreTrainedModel], object] = lambda model: None,
) -> dict[str, Tensor]:
    """Return the gradients that the engine has after one global batch.

    Args:
        prepare: changes the model before the engine is built.
    """
    model: Any = cpu_model(shape, precision, is_lora=layout == "lora").to(ranks.device)
    if layout == "packed":
        enable_packed_attention(model)
    prepare(model)
    # Otherwise ZeRO 3 does not partition small weights.
    zero_3 = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    engine = ZeroEngine(
        WeightedPromptLM(model).train(),
        optimizer=OptimizerConfig(),
        deepspeed_config=DeepSpeedConfig(
            zero_stage=stage, precision=precision, override=zero_3 if stage == 3 else {}
        ),
        ranks=ranks,
        micro_batch_size=4,
    )
    try:
        accumulate_gradient(
            engine,
            examples,
            loss=LossConfig(prompt_loss_weight=PLW),
            batch=BatchConfig(micro_batch_size=4, packing=layout == "packed"),
            max_length=MAX_LENGTH,
            pad_token_id=0,
        )
        return {n.removeprefix(MODEL_PREFIX): g.cpu() for n, g in engine.gradients().items()}
    finally:
        engine.destroy()
