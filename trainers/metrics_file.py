"""metrics.jsonl: one line per logged step."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainers.ranks import Ranks
from trainers.results import StepMetrics


class MetricsFile:
    """The file, appended to by the first rank; a resumed run drops what it will repeat."""

    def __init__(self, path: Path, ranks: Ranks, first_step: int) -> None:
        self._path = path if ranks.is_first else None
        if self._path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[str] = []
        if path.exists():
            kept = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if _step_of(line) <= first_step
            ]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def append(self, metrics: StepMetrics) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(metrics)) + "\n")


def losses_of_every(path: Path, every_steps: int) -> list[float]:
    """The training losses of each `every_steps`-th step and of the last one.

    Lines between them are there for what else was measured: they would change how far apart the
    losses are.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        line["loss"]
        for line in lines
        if line["step"] % every_steps == 0 or line["step"] == line["total_steps"]
    ]


def _step_of(line: str) -> float:
    """The step of a metrics line; a line that a kill cut short counts as not yet written."""
    try:
        content: dict[str, Any] = json.loads(line)
    except ValueError:
        return math.inf
    return float(content["step"])
