"""What every section gets: the device, the sizes, a folder, and its time."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from trainers.engine.performance import peak_memory_bytes, reset_peak_memory

# A line of a section's table. "passed" is True or False where a target decides.
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One section's run. With `is_small`, all sizes are tiny, for a CPU.

    `folder` is for files that nobody needs afterwards. `results` is the JSON file of the sections
    so far. `deadline` is the end of the section's time, by time.monotonic.
    """

    device: torch.device
    is_small: bool
    folder: Path
    results: Path
    deadline: float

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def is_late(self) -> bool:
        """Return whether the section should start nothing more."""
        return time.monotonic() > self.deadline

    def attempt(self, row: Row, measure: Callable[[], Row]) -> Row:
        """Return the row with what `measure` returns, or with its error: the next may succeed."""
        try:
            return {**row, **measure()}
        except Exception as error:  # torch, CUDA and transformers raise many types.
            traceback.print_exc()
            return {**row, "error": f"{type(error).__name__}: {error}"[:300]}

    def synchronize(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, function: Callable[[], object], *, repeats: int, warm_ups: int = 1) -> float:
        """Return the median time of a call."""
        times = []
        for _ in range(warm_ups + repeats):
            self.synchronize()
            started = time.monotonic()
            function()
            self.synchronize()
            times.append(time.monotonic() - started)
        return median(times[warm_ups:])

    def peak_bytes(self, function: Callable[[], object]) -> int:
        """Return the peak memory during a call, of the GPU or else of this process."""
        self.synchronize()
        self.release_memory()
        reset_peak_memory(self.device)
        function()
        self.synchronize()
        return peak_memory_bytes(self.device) or 0

    def release_memory(self) -> None:
        if self.is_cuda:
            torch.cuda.empty_cache()


def is_cuda_usable() -> bool:
    """Return whether CUDA still works: after some errors, every later call of a process fails."""
    with suppress(RuntimeError):
        torch.cuda.synchronize()
        return bool((torch.ones(2, device="cuda") + 1 == 2).all())
    return False
