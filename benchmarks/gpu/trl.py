"""Section: TRL's `SFTTrainer` on the examples and the model of the section on training steps."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, get_args

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.models import Completions
from benchmarks.gpu.speed import sizes
from trainers.foundation.files import read_json, write_json

MIN_SPEEDUP = 1.3
_NEEDED = ("trl", "datasets", "pandas")


def measure_trl(bench: Bench) -> Iterator[Row]:
    """Yield a row for each layout and length, with our speed as a multiple of TRL's."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        yield {"skipped": f"not installed: {', '.join(missing)}"}
        return
    size = sizes(bench)[0]
    for layout in ("packed", "padded"):
        for completions in get_args(Completions):
            row = {"model": size.shape, "layout": layout, "completions": completions}
            if bench.is_late():
                yield {**row, "skipped": "time"}
                continue
            try:
                measured = _run(bench, {"layout": layout, "completions": completions})
            except subprocess.SubprocessError as error:
                yield {**row, "error": str(error)}
                continue
            yield {**row, **measured, **_comparison(bench, row, measured)}


def _run(bench: Bench, job: dict[str, Any]) -> Row:
    """Return the measurements of a process of its own: TRL's state would outlive the section."""
    job_file, result_file = bench.folder / "trl-job.json", bench.folder / "trl-result.json"
    result_file.unlink(missing_ok=True)
    write_json(job_file, {**job, "device": str(bench.device), "is_small": bench.is_small})
    remaining = max(10.0, bench.deadline - time.monotonic())
    # DeepSpeed sets LOCAL_RANK in this process, with which accelerate expects a launcher.
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.trl_side", str(job_file), str(result_file)],
        env=environment,
        check=True,
        timeout=remaining,
    )
    result: Row = read_json(result_file)
    return result


def _comparison(bench: Bench, cell: Row, measured: Row) -> Row:
    """Return our speed and memory over TRL's, if this run measured ours."""
    sections = read_json(bench.results)["sections"]
    ours = [
        row
        for section in sections
        if section["name"] == "speed"
        for row in section["rows"]
        if "tokens/s" in row and row["PLW"] == 0 and cell.items() <= row.items()
    ]
    if not ours:
        return {}
    speedup = ours[0]["tokens/s"] / measured["tokens/s"]
    is_target = cell["layout"] == "packed" and bench.is_cuda
    return {
        "ours over TRL": speedup,
        "memory, ours over TRL": ours[0]["peak memory, GB"] / measured["peak memory, GB"],
        **({"target": f">= {MIN_SPEEDUP}", "passed": speedup >= MIN_SPEEDUP} if is_target else {}),
    }
