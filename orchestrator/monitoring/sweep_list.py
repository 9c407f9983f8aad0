"""Summarize the sweeps in a folder: state, answer and cost of each."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from orchestrator.analysis.costs import compute_cost
from orchestrator.analysis.headline import short_answer
from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.monitoring.lookup import sweep_folders
from orchestrator.record.folder import SweepFolder, check_records
from orchestrator.record.lock import is_running
from trainers.foundation.errors import InputError

# The analysis of a sweep takes 0.2 s, of one with many weights minutes.
MAX_ANALYSED_TRIALS = 300

SweepState = Literal["running", "interrupted", "failed trials", "done", "damaged"]


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """A sweep in few words.

    `state`: `interrupted` if trials are left to run, `damaged` if its records cannot be read.
    `num_done` counts trials that are done or stopped early. `held_hours` is the time for which
    trials held their workers; `gpu_hours` and `money` are None if unknown. `answer` is None if the
    sweep is too large to analyse it here.
    """

    name: str
    folder: str
    state: SweepState
    num_done: int = 0
    num_failed: int = 0
    num_trials: int = 0
    answer: str | None = None
    held_hours: float = 0.0
    gpu_hours: float | None = None
    money: float | None = None
    created_at: str | None = None
    age_s: float | None = None


def summarize_sweeps(runs: Path) -> Iterator[SweepSummary]:
    """Yield a summary of each sweep in the folder `runs`, the most recently started first."""
    for folder in sweep_folders(runs):
        try:
            check_records(folder)
            yield summarize_sweep(folder, has_answer=True)
        except InputError as error:
            yield SweepSummary(
                name=folder.root.name,
                folder=str(folder.relative()),
                state="damaged",
                answer=error.problems[0].message,
            )


def summarize_sweep(folder: SweepFolder, *, has_answer: bool = False) -> SweepSummary:
    """Return a summary of the sweep; with `has_answer`, analyse its scores."""
    sweep, trials = folder.read_sweep(), folder.read_trials()
    states = Counter(trial.state for trial in trials)
    num_done = states["done"] + states["stopped"]
    num_trials = sweep.num_planned
    # A budget or a search that has converged leaves trials that will not run; a stop does not.
    is_stopped = states["interrupted"] > 0 or folder.stop_requested(None)
    has_ended = sweep.end_reason is not None and not is_stopped
    state: SweepState = "interrupted"
    if is_running(folder):
        state = "running"
    elif num_done + states["failed"] == num_trials or has_ended:
        state = "failed trials" if states["failed"] else "done"
    cost = compute_cost(sweep, trials)
    answer = None
    if has_answer and len(trials) <= MAX_ANALYSED_TRIALS:
        answer = short_answer(read_findings(folder))
    return SweepSummary(
        name=folder.root.name,
        folder=str(folder.relative()),
        state=state,
        num_done=num_done,
        num_failed=states["failed"],
        num_trials=num_trials,
        answer=answer,
        held_hours=cost.held_hours,
        gpu_hours=cost.gpu_hours,
        money=cost.money,
        created_at=sweep.created_at,
        age_s=_age_s(sweep.created_at),
    )


def _age_s(created_at: str) -> float | None:
    """Return the seconds since an ISO time; None if it is not one."""
    try:
        created = datetime.fromisoformat(created_at)
    except ValueError:
        return None
    if created.tzinfo is None:
        created = created.astimezone()
    return (datetime.now(UTC) - created).total_seconds()


def format_age(seconds: float | None) -> str:
    """Return an age such as `40s`, `5m`, `3h` or `12d`, or a dash for None."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
