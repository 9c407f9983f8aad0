"""The gradient that training applies, by cell, and its float64 reference."""

import itertools
import json
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM

from tests.trainers.tiny_runs import NO_PERSISTENCE
from trainers.config import BatchConfig, LoraConfig, OptimizerConfig
from trainers.data.roles import EncodedExample, Role
from trainers.deepspeed_config import DeepSpeedConfig, Precision
from trainers.engine.ranks import Ranks
from trainers.engine.zero import ZeroEngine
from trainers.loss import WeightedPromptLM
from trainers.loss_config import LossConfig
from trainers.models.lora import add_lora
from trainers.models.packed_attention import enable_packed_attention
from trainers.step import accumulate_gradient

VOCABULARY = 97
# (prompt tokens, completion tokens): very different lengths, as real data has.
SHAPES = [(3, 2), (40, 1), (5, 30), (17, 4), (2, 2), (60, 9), (9, 1), (21, 12)]
PLWS = (0.0, 0.01, 0.242, 1.0)
MODES = ("weights", "nonzero", "completion", "tokens", "examples")


@dataclass(frozen=True)
class Cell:
    """One way to compute the same gradient; `num_examples` 7 gives an incomplete last batch."""

    prompt_loss_weight: float
    mode: str
    zero_stage: int
    world_size: int
    micro_batch_size: int
    num_examples: int = 8
    packing: bool = False
    lora: bool = False
    offload: bool = False
    tied: bool = True
    recompute: bool = False
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        return (
            f"plw{self.prompt_loss_weight}-{self.mode}-zero{self.zero_stage}"
            f"-{self.world_size}x{self.micro_batch_size}-of{self.num_examples}"
            f"-{'packed' if self.packing else 'padded'}"
            f"{'-lora' if self.lora else ''}{'-offload' if self.offload else ''}"
            f"{'' if self.tied else '-untied'}{'-recompute' if self.recompute else ''}"
            f"{'' if self.precision == 'float32' else '-bfloat16'}"
        )


def all_cells() -> list[Cell]:
    layouts = [(1, 8, 8), (2, 4, 8), (1, 4, 8), (2, 2, 8), (2, 2, 7)]
    return [
        Cell(plw, mode, stage, world, micro, count, packing)
        for plw, mode, stage, (world, micro, count), packing in itertools.product(
            PLWS, MODES, (0, 1, 2, 3), layouts, (False, True)
        )
    ]


def tiny_model(*, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


def cell_model(cell: Cell) -> LlamaForCausalLM:
    model = tiny_model(tied=cell.tied)
    if cell.lora:
        add_lora(model, LoraConfig(rank=4))
        generator = torch.Generator().manual_seed(13)
        for name, parameter in model.named_parameters():
            # The second factor starts at zero, where the first one has no gradient.
            if ".lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model.bfloat16() if cell.precision == "bfloat16" else model


def examples(count: int) -> list[EncodedExample]:
    generator = torch.Generator().manual_seed(11)
    made = []
    for index, (num_prompt, num_completion) in enumerate(islice(cycle(SHAPES), count)):
        ids = torch.randint(0, VOCABULARY, (num_prompt + num_completion,), generator=generator)
        roles = (
            [Role.USER] * (num_prompt - 1) + [Role.TEMPLATE] + [Role.COMPLETION] * num_completion
        )
        made.append(
            EncodedExample(id=str(index), input_ids=ids.tolist(), roles=[int(r) for r in roles])
        )
    return made


def reference_gradient(cell: Cell, part: slice = slice(None)) -> dict[str, torch.Tensor]:
    """Compute the gradient of the global batch by definition, example by example, in float64."""
    model = cell_model(cell).double()
    weighted_sum = torch.zeros((), dtype=torch.float64)
    weights: list[float] = []
    completions = 0
    for example in examples(cell.num_examples)[part]:
        ids = torch.tensor([example.input_ids])
        log_probabilities = torch.log_softmax(model(input_ids=ids).logits[0], dim=-1)
        of_example = torch.zeros((), dtype=torch.float64)
        num_before = len(weights)
        for position in range(1, len(example.input_ids)):
            is_completion = example.roles[position] == Role.COMPLETION
            weight = 1.0 if is_completion else cell.prompt_loss_weight
            weights.append(weight)
            completions += is_completion
            token = example.input_ids[position]
            of_example = of_example - weight * log_probabilities[position - 1, token]
        if cell.mode == "examples":
            of_example = of_example / sum(weights[num_before:])
        weighted_sum = weighted_sum + of_example
    divisor = {
        "weights": sum(weights),
        "nonzero": sum(weight > 0 for weight in weights),
        "completion": completions,
        "tokens": len(weights),
        "examples": cell.num_examples if part == slice(None) else part.stop - part.start,
    }[cell.mode]
    (weighted_sum / divisor).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def micro_batch_gradients(cell: Cell) -> dict[str, torch.Tensor]:
    """Return the float64 sum of the gradients of micro-batches of one example each.

    Each gradient is that of torch's autograd in the cell's precision; no engine is used. Mode
    `weights` only.
    """
    model = WeightedPromptLM(cell_model(cell))
    batch = examples(cell.num_examples)
    weight_of = dict.fromkeys(Role, cell.prompt_loss_weight) | {Role.COMPLETION: 1.0}
    weights = [torch.tensor([weight_of[Role(r)] for r in e.roles[1:]]) for e in batch]
    divisor = sum(float(w.double().sum()) for w in weights)
    sums: dict[str, torch.Tensor] = {}
    for example, weight in zip(batch, weights, strict=True):
        ids = torch.tensor([example.input_ids])
        total, _ = model(ids, torch.arange(len(weight)), ids[0, 1:], weight)
        (total / divisor).backward()
        for name, parameter in model.model.named_parameters():
            if parameter.grad is not None:
                sums[name] = sums.get(name, 0.0) + parameter.grad.double()
        model.zero_grad()
    return sums


def write_gradients(
    cells: list[Cell], folder: Path, override: dict[str, Any] | None = None
) -> None:
    """Compute each cell's gradient with the trainer's code, as one rank of the group."""
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    for cell in cells:
        model = cell_model(cell)
        if cell.recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if cell.packing:
            enable_packed_attention(model)
        engine = ZeroEngine(
            WeightedPromptLM(model).train(),
            optimizer=OptimizerConfig(),
            deepspeed_config=DeepSpeedConfig(
                zero_stage=cell.zero_stage,
                precision=cell.precision,
                override=override or (NO_PERSISTENCE if cell.zero_stage == 3 else {}),
                offload_optimizer=cell.offload,
                offload_parameters=cell.offload and cell.zero_stage == 3,
            ),
            ranks=ranks,
            micro_batch_size=cell.micro_batch_size,
        )
        batch_loss = accumulate_gradient(
            engine,
            examples(cell.num_examples),
            loss=LossConfig(prompt_loss_weight=cell.prompt_loss_weight, normalization=cell.mode),
            batch=BatchConfig(
                global_batch_size=cell.num_examples,
                micro_batch_size=cell.micro_batch_size,
                packing=cell.packing,
            ),
            # Packed, about as many examples to a forward pass as padded.
            max_length=30,
            pad_token_id=0,
        )
        gradients = {
            name.removeprefix("model."): gradient.clone()
            for name, gradient in engine.gradients().items()
        }
        if ranks.is_main:
            torch.save(gradients, folder / f"{cell.name}.pt")
            (folder / f"{cell.name}.json").write_text(json.dumps(asdict(batch_loss)))
        engine.destroy()


def errors(
    gradients: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]
) -> tuple[float, float]:
    """Return the relative error over all parameters, and the largest of one tensor.

    Tensors whose gradient is below 1e-6 of the whole are left out of the second: their relative
    error says nothing.
    """
    assert gradients.keys() == reference.keys()
    total = sum(float(g.square().sum()) for g in reference.values()) ** 0.5
    differences = {
        name: float((gradients[name].double() - reference[name]).norm()) for name in reference
    }
    overall = sum(d**2 for d in differences.values()) ** 0.5 / total
    by_tensor = [
        differences[name] / float(reference[name].norm())
        for name in reference
        if float(reference[name].norm()) > 1e-6 * total
    ]
    return overall, max(by_tensor)
