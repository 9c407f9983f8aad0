"""Show a sweep while it runs: a live table on a terminal, plain lines when piped."""

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

from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import is_running
from orchestrator.record.reader import SweepReader
from orchestrator.watching.status import (
    MAX_ROWS,
    PIPED_WIDTH,
    counts,
    remaining_s,
    status_line,
    status_table,
    summary,
)

# Piped output has one line for about every tenth of a trial.
LINES_PER_TRIAL = 10
# Title, heading, borders and caption of the table.
LINES_AROUND_ROWS = 8


class Screen:
    """A sweep as a live table on a terminal, as plain lines in a file or a pipe, or nowhere."""

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
            # Live would take sys.stdout as well, and show here what belongs in the log.
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
        """Show how things stand, of which the `changed` trials are news."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
            return
        for trial in self._reader.statuses(changed):
            if trial.id in self._skipped:
                self._say(trial.id, f"{trial.trial}  done before, skipped", ("skipped", 0))
            elif trial.state != "pending":
                tenth = trial.step * LINES_PER_TRIAL // (trial.total_steps or 1)
                self._say(trial.id, status_line(trial), (trial.state, tenth))

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, markup=False, highlight=False)

    def print_table(self) -> None:
        """The table as it is, once."""
        self._console.print(self._table())

    def _table(self) -> Table:
        most = self._max_rows
        if most is not None and self._console.is_terminal:
            most = min(most, max(self._console.height - LINES_AROUND_ROWS, 1))
        return status_table(
            self._reader.sweep.name,
            self._reader.statuses(),
            skipped=self._skipped,
            max_rows=most,
        )

    def _say(self, trial_id: str, line: str, progress: tuple[str, int]) -> None:
        if self._shown.get(trial_id) == progress:
            return
        self._shown[trial_id] = progress
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self.say(f"[{minutes:02d}:{seconds:02d}] {line}")


def watch(
    folder: SweepFolder,
    stream: TextIO,
    *,
    interval_s: float,
    max_rows: int | None,
    as_json: bool = False,
) -> None:
    """Show the sweep in `folder` every `interval_s` until it ends, or until Ctrl-C.

    With `as_json`, one line for each time that something changed, with the trials that did.
    """
    reader = SweepReader(folder)
    if as_json:
        _rounds(folder, interval_s, lambda: _print_json(reader))
        return
    with Screen(reader, stream, max_rows=max_rows) as screen:
        was_running = is_running(folder)
        has_ended = _rounds(folder, interval_s, lambda: screen.update(reader.refresh()))
    if not stream.isatty():
        screen.say(summary(reader.statuses()))
    if has_ended:
        what = "the sweep has ended" if was_running else "no sweep is running in this folder"
        screen.say(what)


def _rounds(folder: SweepFolder, interval_s: float, show: Callable[[], None]) -> bool:
    """Call `show` until the sweep has ended, and once after; False if Ctrl-C came before."""
    try:
        while True:
            # Asked first: what the sweep wrote at its end is shown, too.
            runs = is_running(folder)
            show()
            if not runs:
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
        "counts": counts(trials),
        "remaining_s": remaining_s(trials),
        "changed": [asdict(trial) for trial in reader.statuses(changed)],
    }
    click.echo(json.dumps(content))
