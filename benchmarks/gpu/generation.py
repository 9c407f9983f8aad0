"""Section: generated tokens per second of the evaluation's engines."""

import random
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.models import SHAPES, save_random_model
from evals.engine.generation import generate
from evals.engine.loaded_model import LoadedModel
from evals.engine.loading import load_model
from evals.engine_config import Engine

ENGINES: tuple[Engine, ...] = ("padded", "continuous")


def measure_generation(bench: Bench) -> Iterator[Row]:
    """Yield tokens per second of each engine, and how many outputs are the same in both."""
    shape = "tiny" if bench.is_small else "1B"
    count, longest, new = (4, 12, 8) if bench.is_small else (256, 400, 128)
    folder = save_random_model(bench.folder / "generation-model", shape, bench.device)
    generator = random.Random(0)
    prompts = [
        [generator.randrange(2, SHAPES[shape]["vocab_size"]) for _ in range(length)]
        for length in (generator.randint(longest // 4, longest) for _ in range(count))
    ]
    padded: list[list[int]] = []
    for engine in ENGINES:
        row: Row = {"engine": engine, "model": shape, "prompts": count, "new tokens each": new}
        if bench.is_late():
            yield {**row, "skipped": "time"}
            continue
        yield bench.attempt(row, partial(_measure, bench, folder, engine, prompts, new, padded))
        bench.release_memory()


def _measure(
    bench: Bench,
    folder: Path,
    engine: Engine,
    prompts: list[list[int]],
    new: int,
    padded: list[list[int]],
) -> Row:
    """Return the row of an engine; `padded` gets the outputs of the first one."""
    loaded = load_model(folder, template="plain", max_length=2048, engine=engine)
    with closing(loaded.engine):
        _outputs(loaded, prompts[: max(2, len(prompts) // 8)], 4)  # a warm-up
        bench.synchronize()
        started = time.monotonic()
        outputs = _outputs(loaded, prompts, new)
        seconds = time.monotonic() - started
    if not padded:
        padded.extend(outputs)
    return {
        "tokens/s": sum(len(output) for output in outputs) / seconds,
        "s": seconds,
        "outputs as padded": sum(a == b for a, b in zip(outputs, padded, strict=True)),
    }


def _outputs(loaded: LoadedModel, prompts: list[list[int]], new: int) -> list[list[int]]:
    return generate(
        loaded, prompts, max_new_tokens=new, batch_size=None, on_progress=lambda done, total: None
    )
