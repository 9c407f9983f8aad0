"""metrics.jsonl: one line per logged step."""

import json
from dataclasses import asdict
from pathlib import Path

from trainers.files import write_text
from trainers.ranks import Ranks
from trainers.results import StepMetrics


class MetricsFile:
    """The file, appended to by the first rank.

    Steps that a resumed run computes again keep the line, and with it the time, of the first time.
    """

    def __init__(self, path: Path, ranks: Ranks) -> None:
        self._path = path if ranks.is_first else None
        self._last_step = 0
        if self._path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            whole = [line for line in lines if _is_whole(line)]
            if len(whole) < len(lines):
                write_text(path, "".join(f"{line}\n" for line in whole))
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
