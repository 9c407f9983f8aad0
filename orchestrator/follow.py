"""Follow a running sweep by its files: a live table on a terminal, plain lines when piped."""

import io
import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.record import SweepFolder, TrialRecord
from orchestrator.tracking import Tracker

REFRESH_S = 1.0
# Piped output has one line for about every tenth of a trial.
LINES_PER_TRIAL = 10
# A table that is piped is cut by nobody.
PIPED_WIDTH = 160


class Follower:
    """Shows the trials of a sweep and posts their progress to MLflow, from a thread of its own.

    It only reads what the trials write, so nothing that it does can disturb them.
    """

    def __init__(
        self, folder: SweepFolder, tracker: Tracker, terminal: TextIO | None, *, skipped: set[str]
    ) -> None:
        self._folder = folder
        self._tracker = tracker
        is_terminal = terminal is not None and terminal.isatty()
        self._console = Console(
            file=terminal or io.StringIO(),
            soft_wrap=not is_terminal,
            width=None if is_terminal else PIPED_WIDTH,
        )
        self._skipped = skipped
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._shown: dict[str, tuple[str, int]] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def say_stopping(self) -> None:
        """Answer an interrupt at once: ending what runs takes some seconds."""
        self._console.print(
            "stopping; the same command goes on from the last checkpoints (again: stop at once)",
            markup=False,
            highlight=False,
        )

    def show_once(self) -> None:
        """Print the table as it is, for a sweep with nothing left to run."""
        self._console.print(status_table(self._folder, self._skipped))

    def _follow(self) -> None:
        if not self._console.is_terminal:
            while not self._stop.wait(REFRESH_S):
                self._round()
            self._round()
            return
        # Live would take sys.stdout as well, and show on the terminal what belongs in the log.
        with Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while not self._stop.wait(REFRESH_S):
                self._sync()
                live.update(status_table(self._folder, self._skipped), refresh=True)
            self._sync()
            live.update(status_table(self._folder, self._skipped), refresh=True)

    def _round(self) -> None:
        for record in self._folder.read_trials():
            if record.id in self._skipped:
                self._say(record, f"{label(record)}  done before, skipped", ("skipped", 0))
                continue
            step = last_metrics(self._folder.metrics(record.id)).get("step", 0)
            total = record.total_steps or 1
            tenth = step * LINES_PER_TRIAL // total
            self._say(record, _line(self._folder, record), (record.state, tenth))
        self._sync()

    def _say(self, record: TrialRecord, line: str, progress: tuple[str, int]) -> None:
        if record.state == "pending" or self._shown.get(record.id) == progress:
            return
        self._shown[record.id] = progress
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self._console.print(f"[{minutes:02d}:{seconds:02d}] {line}", markup=False, highlight=False)

    def _sync(self) -> None:
        for record in self._folder.read_trials():
            if record.state != "pending":
                self._tracker.sync_trial(record.id)


def label(record: TrialRecord) -> str:
    """A trial by its searched values, short enough for a table."""
    parts = []
    for dotted, value in record.searched.items():
        name = "PLW" if dotted == "loss.prompt_loss_weight" else dotted.rsplit(".", 1)[-1]
        parts.append(f"{name} {value}")
    return ", ".join(parts)


def last_metrics(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics file; empty where there is none yet."""
    if not path.exists():
        return {}
    for line in reversed(path.read_text(encoding="utf-8").splitlines()):
        try:
            content: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        return content
    return {}


def status_rows(folder: SweepFolder) -> list[dict[str, Any]]:
    """Each trial's state and progress, for `plw status --json` and the live table.

    Losses are in nats per token, times in seconds; None where nothing is known yet.
    """
    rows = []
    for record in folder.read_trials():
        metrics = last_metrics(folder.metrics(record.id))
        step = metrics.get("step", 0)
        remaining = None
        if record.state == "training" and metrics and record.total_steps:
            per_step = metrics["num_tokens"] / metrics["tokens_per_second"]
            remaining = (record.total_steps - step) * per_step
        rows.append(
            {
                "id": record.id,
                "trial": label(record),
                "searched": record.searched,
                "state": record.state,
                "step": step,
                "total_steps": record.total_steps,
                "completion_loss": metrics.get("completion_loss"),
                "prompt_loss": metrics.get("prompt_loss"),
                "tokens_per_second": metrics.get("tokens_per_second"),
                "remaining_s": remaining,
                "error": record.error,
            }
        )
    return rows


def status_table(folder: SweepFolder, skipped: set[str]) -> Table:
    """The trials of a sweep as a table for people."""
    table = Table(title=f"sweep {folder.read_sweep().name}", title_justify="left")
    for heading in ("trial", "id", "state"):
        table.add_column(heading)
    for heading in ("step", "completion loss", "prompt loss", "tokens/s", "left"):
        table.add_column(heading, justify="right")
    for row in status_rows(folder):
        state = "done before" if row["id"] in skipped else row["state"]
        if row["error"]:
            state = f"{state}: {row['error'][:60]}"
        table.add_row(
            row["trial"],
            row["id"],
            state,
            f"{row['step']}/{row['total_steps'] or '?'}",
            format_number(row["completion_loss"], ".3f"),
            format_number(row["prompt_loss"], ".3f"),
            format_number(row["tokens_per_second"], ".0f"),
            format_duration(row["remaining_s"]),
        )
    return table


def _line(folder: SweepFolder, record: TrialRecord) -> str:
    metrics = last_metrics(folder.metrics(record.id))
    if record.state == "failed":
        return f"{label(record)}  failed: {record.error}"
    if record.state == "done":
        return f"{label(record)}  done  ({record.id})"
    if record.state == "scoring" or not metrics:
        return f"{label(record)}  {record.state}"
    left = (record.total_steps or 0) - metrics["step"]
    seconds = left * metrics["num_tokens"] / metrics["tokens_per_second"]
    return (
        f"{label(record)}  step {metrics['step']}/{record.total_steps}  completion loss "
        f"{format_number(metrics['completion_loss'], '.3f')}  prompt loss "
        f"{format_number(metrics['prompt_loss'], '.3f')}  "
        f"{metrics['tokens_per_second']:.0f} tokens/s  {format_duration(seconds)} left"
    )


def format_number(value: float | None, form: str) -> str:
    """`value` formatted, or a dash for what is not known."""
    return "-" if value is None else format(value, form)


def format_duration(seconds: float | None) -> str:
    """A time in seconds as people say it, or a dash for what is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
