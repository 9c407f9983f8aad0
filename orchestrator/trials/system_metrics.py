"""Sample the system metrics of a trial's node with MLflow's monitors, in its first rank."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.foundation.periodic import run_periodically
from orchestrator.tracking.client import SystemMonitors

SAMPLE_EVERY_S = 10.0
# MLflow shows metrics with this prefix on a separate page.
PREFIX = "system/"


@contextmanager
def record_system_metrics(path: Path) -> Iterator[None]:
    """Append a line to `path` every 10 s while the block runs, and one at its end.

    The lines have the format of metrics.jsonl; their step numbers continue those in the file. A
    failed sample is logged and does not interrupt the block.
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

    with run_periodically(SAMPLE_EVERY_S, sample, name="system-metrics"):
        yield
    sample()
