"""metrics.jsonl: one line per logged step."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainers.engine.ranks import Ranks
from trainers.foundation.files import read_json, write_json, write_text
from trainers.runs.results import StepMetrics


class MetricsFile:
    """The file in a run's folder, appended to by the first rank.

    Steps that a resumed run computes again keep the line, and with it the time, of the first time.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], ranks: Ranks) -> None:
        """
        Args:
            settings: of the run; the lines of a run with others are dropped.
        """
        self._path = folder / "metrics.jsonl" if ranks.is_first else None
        self._last_step = 0
        if self._path is None:
            return
        config = folder / "config.json"
        is_same_run = config.exists() and read_json(config) == settings
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        whole = [line for line in text.splitlines() if is_same_run and _is_whole(line)]
        kept = "".join(f"{line}\n" for line in whole)
        if kept != text or not self._path.exists():
            write_text(self._path, kept)
        write_json(config, settings)
        self._last_step = max((json.loads(line)["step"] for line in whole), default=0)

    def append(self, metrics: StepMetrics) -> None:
        if self._path is not None and metrics.step > self._last_step:
            self._last_step = metrics.step
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


def _is_whole(line: str) -> bool:
    """Not so for a line that a kill cut short, which counts as not yet written."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
