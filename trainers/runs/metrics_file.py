"""The metrics file of a run: metrics.jsonl, with one line for each logged step."""

import json
from dataclasses import asdict
from pathlib import Path

from trainers.config import TrainConfig, is_same_config
from trainers.engine.ranks import Ranks
from trainers.foundation.files import read_json, write_json, write_text
from trainers.foundation.jsonl import read_jsonl
from trainers.runs.results import StepMetrics


class MetricsFile:
    """The metrics file in a run's folder; only the main rank appends to it.

    If a resumed run repeats a step, the step keeps its first line, including the time.
    """

    def __init__(self, folder: Path, config: TrainConfig, ranks: Ranks) -> None:
        """
        Args:
            config: config of the run; lines of a run with another config are deleted.
        """
        self._path = folder / "metrics.jsonl" if ranks.is_main else None
        self._last_step = 0
        if self._path is None:
            return
        config_json = folder / "config.json"
        is_same_run = config_json.exists() and is_same_config(read_json(config_json), config)
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        complete = [line for line in text.splitlines() if is_same_run and _is_complete(line)]
        valid_text = "".join(f"{line}\n" for line in complete)
        if valid_text != text or not self._path.exists():
            write_text(self._path, valid_text)
        write_json(config_json, config.model_dump(mode="json"))
        self._last_step = max((json.loads(line)["step"] for line in complete), default=0)

    def append(self, metrics: StepMetrics) -> None:
        """Append the metrics of a step, unless the file already contains it."""
        if self._path is not None and metrics.step > self._last_step:
            self._last_step = metrics.step
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(metrics)) + "\n")


def read_losses(path: Path, every_steps: int) -> list[float]:
    """Return the training losses of every `every_steps`-th step and of the last step.

    Other lines exist only because something else was measured at their step. They are skipped to
    keep the spacing regular.
    """
    return [
        row["loss"]
        for row in read_jsonl(path, dict)
        if row["step"] % every_steps == 0 or row["step"] == row["total_steps"]
    ]


def _is_complete(line: str) -> bool:
    """Return whether a line is complete; killing the run can truncate the last line."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
