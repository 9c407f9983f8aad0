"""Traces of single optimizer steps by torch.profiler, in the run's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from trainers.engine.ranks import Ranks
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import write_text

TRACES = "profile"
_MAX_ROWS = 40


def check_profile_steps(steps: tuple[int, int] | None, total_steps: int) -> None:
    """Check that the run has the steps to trace.

    Raises:
        InputError: the last of them is after the run's last step.
    """
    if steps is not None and steps[1] > total_steps:
        raise InputError(
            Problem(
                message=f"profile_steps must be at most {total_steps}, the number of steps of the"
                f" run, got {list(steps)}",
                fix="set profile_steps to earlier steps, or null",
            )
        )


@contextmanager
def trace_step(
    step: int, steps: tuple[int, int] | None, output_dir: Path, ranks: Ranks
) -> Iterator[None]:
    """Trace the code in this context, if `step` (from 1) is in the range `steps`.

    Each rank writes `profile/step-N-rank-R.json.gz` for chrome://tracing or Perfetto, and a table
    of the operations that take most time (`.txt`).
    """
    if steps is None or not steps[0] <= step <= steps[1]:
        yield
        return
    is_cuda = ranks.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities, record_shapes=True) as trace:
        yield
        if is_cuda:
            torch.cuda.synchronize(ranks.device)
    folder = output_dir / TRACES
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step}-rank-{ranks.rank}"
    trace.export_chrome_trace(str(folder / f"{name}.json.gz"))
    sort_by = "self_cuda_time_total" if is_cuda else "self_cpu_time_total"
    table = trace.key_averages().table(sort_by=sort_by, row_limit=_MAX_ROWS)
    write_text(folder / f"{name}.txt", table)
