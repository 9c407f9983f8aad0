"""What a trial's node was doing, sampled beside its first rank, as MLflow's own monitors see it."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.foundation.periodic import every
from orchestrator.tracking.client import SystemMonitors

SAMPLE_EVERY_S = 10.0
# MLflow shows metrics of such names on a page of their own.
PREFIX = "system/"


@contextmanager
def system_metrics_in(path: Path) -> Iterator[None]:
    """Append a line to `path` every 10 s while the block runs, and one at its end.

    The lines are as those of metrics.jsonl, numbered on from what the file holds. What goes wrong
    with them is logged: the work of the block goes on.
    """
    monitors = SystemMonitors()
    num_lines = path.read_bytes().count(b"\n") if path.exists() else 0

    def sample() -> None:
        nonlocal num_lines
        try:
            values = {PREFIX + name: value for name, value in monitors.sample().items()}
            line = json.dumps({"step": num_lines, "time": time.time(), **values})
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            num_lines += 1
        except Exception as error:
            logging.warning("system metrics were not sampled: %s", error)

    with every(SAMPLE_EVERY_S, sample, name="system-metrics"):
        yield
    sample()
