"""Sections: the loss head's memory over vocabularies, and its speed next to torch's own.

Shape legend: N positions, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.bench import Bench, Row
from trainers.loss import chunked_cross_entropy

MAX_MEMORY_RATIO = 1.1
REPEATS = 5


@dataclass(frozen=True)
class HeadInputs:
    """Inputs of a loss head, in bfloat16; half of the targets have weight 0.1."""

    hidden_ND: Tensor
    weight_VD: Tensor
    targets_N: Tensor
    weights_N: Tensor

    @classmethod
    def random(cls, bench: Bench, positions: int, hidden: int, vocabulary: int) -> "HeadInputs":
        generator = torch.Generator(bench.device).manual_seed(0)
        settings: dict[str, Any] = {"device": bench.device, "generator": generator}
        hidden_ND = torch.randn(positions, hidden, dtype=torch.bfloat16, **settings)
        weight_VD = torch.randn(vocabulary, hidden, dtype=torch.bfloat16, **settings)
        weights_N = torch.ones(positions, device=bench.device)
        weights_N[::2] = 0.1
        return cls(
            hidden_ND.requires_grad_(),
            weight_VD.mul_(hidden**-0.5).requires_grad_(),
            torch.randint(vocabulary, (positions,), **settings),
            weights_N,
        )

    def gradients(self, loss: Callable[["HeadInputs"], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss and its gradients by the hidden states and by the output matrix."""
        value = loss(self)
        to_hidden, to_weight = torch.autograd.grad(value, (self.hidden_ND, self.weight_VD))
        return value.detach(), to_hidden, to_weight


def our_head(inputs: HeadInputs) -> Tensor:
    total, _ = chunked_cross_entropy(
        inputs.hidden_ND, inputs.weight_VD, None, inputs.targets_N, inputs.weights_N
    )
    return total / inputs.weights_N.sum()


def full_logits(inputs: HeadInputs) -> Tensor:
    """The usual way: all logits at once, in float32."""
    logits_NV = nn.functional.linear(inputs.hidden_ND, inputs.weight_VD).float()
    losses_N = nn.functional.cross_entropy(logits_NV, inputs.targets_N, reduction="none")
    return (losses_N * inputs.weights_N).sum() / inputs.weights_N.sum()


def torch_head(inputs: HeadInputs) -> Tensor:
    """torch.nn.functional.linear_cross_entropy, which is chunked too."""
    functional: Any = nn.functional
    options = getattr(functional, "LinearCrossEntropyOptions", None)
    losses_N: Tensor = functional.linear_cross_entropy(
        inputs.hidden_ND,
        inputs.weight_VD,
        inputs.targets_N,
        reduction="none",
        **({"options": options()} if options is not None else {}),
    )
    return (losses_N * inputs.weights_N).sum() / inputs.weights_N.sum()


def measure_vocabularies(bench: Bench) -> Iterator[Row]:
    """Yield the head's peak memory for each vocabulary, and the ratio of largest to smallest.

    `beyond, GB` is without what grows with the vocabulary in any head: the output matrix in
    bfloat16, and the float32 sum of its gradient.
    """
    positions, hidden = (256, 64) if bench.is_small else (65536, 2048)
    vocabularies = (512, 1024) if bench.is_small else (32768, 65536, 131072, 262144)
    beyond: list[float] = []
    for vocabulary in vocabularies:
        inputs = HeadInputs.random(bench, positions, hidden, vocabulary)
        peak = bench.peak_bytes(partial(inputs.gradients, our_head))
        matrix = inputs.weight_VD.numel()
        beyond.append((peak - (2 + 4) * matrix) / 1e9)
        yield {"vocabulary": vocabulary, "peak, GB": peak / 1e9, "beyond, GB": beyond[-1]}
        del inputs
        bench.release_memory()
    ratio = max(beyond) / min(beyond)
    # On a CPU, the peak is that of the process.
    yield {
        "vocabulary": "all",
        "largest over smallest": ratio,
        "limit": MAX_MEMORY_RATIO,
        **({"passed": ratio <= MAX_MEMORY_RATIO} if bench.is_cuda else {}),
    }


def compare_heads(bench: Bench) -> Iterator[Row]:
    """Yield time and memory of our head, of torch's, and of full logits, at two shapes.

    Errors are relative to full logits of the same inputs in float32.
    """
    shapes = ((128, 64, 512),) if bench.is_small else ((8192, 2048, 128256), (8192, 4096, 32000))
    heads = {"ours": our_head, "linear_cross_entropy": torch_head, "full logits": full_logits}
    for positions, hidden, vocabulary in shapes:
        inputs = HeadInputs.random(bench, positions, hidden, vocabulary)
        exact = HeadInputs(
            inputs.hidden_ND.detach().float().requires_grad_(),
            inputs.weight_VD.detach().float().requires_grad_(),
            inputs.targets_N,
            inputs.weights_N,
        ).gradients(full_logits)
        for name, head in heads.items():
            row: Row = {"head": name, "N x D x V": f"{positions} x {hidden} x {vocabulary}"}
            if name == "linear_cross_entropy" and not hasattr(nn.functional, name):
                yield {**row, "skipped": f"torch {torch.__version__} has none"}
                continue
            if bench.is_late():
                yield {**row, "skipped": "time"}
                continue
            yield bench.attempt(row, partial(_measure, bench, inputs, head, exact))
        del inputs, exact
        bench.release_memory()


def _measure(
    bench: Bench,
    inputs: HeadInputs,
    head: Callable[[HeadInputs], Tensor],
    exact: tuple[Tensor, ...],
) -> Row:
    loss, to_hidden, to_weight = (
        float((a.float() - b).norm() / b.norm())
        for a, b in zip(inputs.gradients(head), exact, strict=True)
    )
    memory = bench.peak_bytes(partial(inputs.gradients, head))
    seconds = bench.seconds(partial(inputs.gradients, head), repeats=REPEATS)
    return {
        "ms": 1e3 * seconds,
        "peak, GB": memory / 1e9,
        "error of loss": loss,
        "of hidden gradient": to_hidden,
        "of matrix gradient": to_weight,
    }
