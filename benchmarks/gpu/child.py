"""Run sections in one process and report each row through a pipe (started by `runner`).

python -m benchmarks.gpu.child FD DEVICE FOLDER RESULTS is-small|is-full SECTIONS_JSON
"""

import gc
import json
import math
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.gpu.bench import Bench, is_cuda_usable
from benchmarks.gpu.sections import Section


def main(fd: str, device: str, folder: str, results: str, size: str, sections: str) -> int:
    with os.fdopen(int(fd), "w", encoding="utf-8") as events:
        _report(events, "machine", **_machine(device))
        is_small = size == "is-small"
        for section in (Section(**fields) for fields in json.loads(sections)):
            bench = Bench(
                device=torch.device(device, 0) if device == "cuda" else torch.device(device),
                is_small=is_small,
                folder=Path(folder),
                results=Path(results),
                deadline=time.monotonic() + section.time_s(is_small=is_small),
            )
            _run(section, bench, events)
    return 0


def _machine(device: str) -> dict[str, Any]:
    is_cuda = device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_cuda else None,
    }


def _run(section: Section, bench: Bench, events: TextIO) -> None:
    _report(events, "start")
    started, error = time.monotonic(), None
    try:
        for row in section.rows(bench):
            _report(events, "row", row={name: _finite(value) for name, value in row.items()})
    except Exception as problem:
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem}"
    _report(events, "end", error=error, seconds=time.monotonic() - started)
    if bench.is_cuda and not is_cuda_usable():
        # The parent starts a new process for the other sections.
        sys.exit(1)
    gc.collect()
    bench.release_memory()


def _finite(value: Any) -> Any:
    """Return a number that is not finite as text, because JSON has none."""
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return value if is_finite else str(value)


def _report(events: TextIO, event: str, **content: Any) -> None:
    events.write(json.dumps({"event": event, **content}) + "\n")
    events.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
