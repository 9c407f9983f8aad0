"""Show a sweep while it runs: a live table on a terminal, lines in piped output."""

import json
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Self, TextIO

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.monitoring.status import (
    MAX_ROWS,
    PIPED_WIDTH,
    count_states,
    remaining_s,
    status_line,
    status_table,
    summary,
)
from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import is_running
from orchestrator.record.reader import SweepReader

# Piped output has about ten lines per trial.
LINES_PER_TRIAL = 10
# Lines for title, heading, borders and caption of the table.
LINES_AROUND_ROWS = 8


class SweepDisplay:
    """Shows a sweep as a live table on a terminal, or as lines in a file or a pipe."""

    def __init__(
        self,
        reader: SweepReader,
        stream: TextIO | None,
        *,
        skipped: Collection[str] = (),
        max_rows: int | None = MAX_ROWS,
    ) -> None:
        is_terminal = stream is not None and stream.isatty()
        self._console = Console(
            file=stream,
            quiet=stream is None,
            soft_wrap=not is_terminal,
            width=None if is_terminal else PIPED_WIDTH,
        )
        self._reader = reader
        self._skipped = skipped
        self._max_rows = max_rows
        self._live: Live | None = None
        self._stack = ExitStack()
        self._shown: dict[str, tuple[str, int]] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # By default, Live also captures sys.stdout and shows output that belongs in the log.
            live = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live = self._stack.enter_context(live)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def update(self, changed: Sequence[str]) -> None:
        """Show the current status; lines are printed only for the `changed` trials."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            return
        for trial in self._reader.statuses(changed):
            if trial.id in self._skipped:
                self._print_progress(
                    trial.id, f"{trial.trial}  done before, skipped", ("skipped", 0)
                )
            elif trial.state != "pending":
                tenth = trial.step * LINES_PER_TRIAL // (trial.total_steps or 1)
                self._print_progress(trial.id, status_line(trial), (trial.state, tenth))

    def print_line(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False)

    def print_table(self) -> None:
        """Print the table once."""
        self._console.print(self._table())

    def _table(self) -> Table:
        max_rows = self._max_rows
        if max_rows is not None and self._console.is_terminal:
            max_rows = min(max_rows, max(self._console.height - LINES_AROUND_ROWS, 1))
        return status_table(
            self._reader.sweep.name,
            self._reader.statuses(),
            num_planned=self._reader.sweep.num_planned,
            skipped=self._skipped,
            max_rows=max_rows,
        )

    def _print_progress(self, trial_id: str, line: str, progress: tuple[str, int]) -> None:
        if self._shown.get(trial_id) == progress:
            return
        self._shown[trial_id] = progress
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self.print_line(f"[{minutes:02d}:{seconds:02d}] {line}")


def watch(
    folder: SweepFolder,
    stream: TextIO,
    *,
    interval_s: float,
    max_rows: int | None,
    as_json: bool = False,
) -> None:
    """Show the sweep in `folder` every `interval_s` until it ends or Ctrl-C.

    With `as_json`, print one line of JSON for each change, with the changed trials.
    """
    reader = SweepReader(folder)
    if as_json:
        _poll_until_ended(folder, interval_s, lambda: _print_json(reader))
        return
    with SweepDisplay(reader, stream, max_rows=max_rows) as display:
        was_running = is_running(folder)
        has_ended = _poll_until_ended(folder, interval_s, lambda: display.update(reader.refresh()))
    if not stream.isatty():
        display.print_line(summary(reader.statuses(), reader.sweep.num_planned))
    if has_ended:
        message = "the sweep has ended" if was_running else "no sweep is running in this folder"
        display.print_line(message)


def _poll_until_ended(folder: SweepFolder, interval_s: float, show: Callable[[], None]) -> bool:
    """Call `show` until the sweep ends, and once afterwards; return False on Ctrl-C."""
    try:
        while True:
            # Check this before `show`, so that the final state is shown.
            is_active = is_running(folder)
            show()
            if not is_active:
                return True
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return False


def _print_json(reader: SweepReader) -> None:
    changed = reader.refresh()
    if not changed:
        return
    trials = reader.statuses()
    content = {
        "counts": count_states(trials),
        "remaining_s": remaining_s(trials),
        "changed": [asdict(trial) for trial in reader.statuses(changed)],
    }
    click.echo(json.dumps(content))
