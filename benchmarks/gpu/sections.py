"""The sections, in the order in which they run: the most valuable first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # The parent process needs no torch.
    from benchmarks.gpu.bench import Bench, Row

# A section that ignores its time limit is killed after this many times the limit.
GRACE = 2.0
# Small shapes run on any machine, also beside other work.
SMALL_FACTOR = 10.0


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section: `function` of `module` yields its rows, and starts none after its time."""

    name: str
    title: str
    module: str
    function: str
    limit_s: float

    def time_s(self, *, is_small: bool) -> float:
        """Return the section's time in seconds."""
        return self.limit_s * (SMALL_FACTOR if is_small else 1.0)

    def rows(self, bench: "Bench") -> "Iterator[Row]":
        run: Callable[[Bench], Iterator[Row]] = getattr(import_module(self.module), self.function)
        return run(bench)


SECTIONS = {
    section.name: section
    for section in (
        Section(
            name="gradients",
            title="Gradient of one step against float64 on the CPU",
            module="benchmarks.gpu.gradients",
            function="check_gradients",
            limit_s=60,
        ),
        Section(
            name="speed",
            title="Training steps: tokens per second, MFU, peak memory",
            module="benchmarks.gpu.speed",
            function="measure_speed",
            limit_s=80,
        ),
        Section(
            name="resume",
            title="Train, kill -9, resume",
            module="benchmarks.gpu.resume",
            function="check_resume",
            limit_s=75,
        ),
        Section(
            name="export",
            title="Export, and reload with transformers alone",
            module="benchmarks.gpu.exported",
            function="check_export",
            limit_s=30,
        ),
        Section(
            name="vocabularies",
            title="Peak memory of the loss head over vocabularies",
            module="benchmarks.gpu.head",
            function="measure_vocabularies",
            limit_s=15,
        ),
        Section(
            name="heads",
            title="Loss heads: ours, torch.nn.functional.linear_cross_entropy, full logits",
            module="benchmarks.gpu.head",
            function="compare_heads",
            limit_s=15,
        ),
        Section(
            name="options",
            title="Compiled layers, fused kernels, 8-bit moments: a packed step at PLW 0",
            module="benchmarks.gpu.options",
            function="measure_options",
            limit_s=90,
        ),
        Section(
            name="trl",
            title="TRL's SFTTrainer at PLW 0, next to the section on training steps",
            module="benchmarks.gpu.trl",
            function="measure_trl",
            limit_s=60,
        ),
        Section(
            name="generation",
            title="Generated tokens per second",
            module="benchmarks.gpu.generation",
            function="measure_generation",
            limit_s=40,
        ),
    )
}
