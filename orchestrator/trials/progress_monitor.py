"""Show a running sweep on the terminal and log it to MLflow, based on the sweep's files."""

from contextlib import ExitStack
from typing import Protocol, Self, TextIO

from orchestrator.foundation.periodic import run_periodically
from orchestrator.monitoring.watch import SweepDisplay
from orchestrator.record.folder import SweepFolder
from orchestrator.record.reader import SweepReader

REFRESH_S = 1.0


class TrialSink(Protocol):
    """Receiver of the progress of trials, such as the tracker."""

    def sync_trial(self, trial_id: str) -> bool:
        """Send the progress of a trial; return whether all of it has been received."""


class ProgressMonitor:
    """Shows the trials of a sweep and logs their progress to MLflow, in a background thread.

    The monitor only reads the files of the trials, so it cannot disturb them. Each round checks the
    modification times of the files and reads the changed ones.
    """

    def __init__(
        self, folder: SweepFolder, tracker: TrialSink, terminal: TextIO | None, *, skipped: set[str]
    ) -> None:
        self._reader = SweepReader(folder)
        self._tracker = tracker
        self._screen = SweepDisplay(self._reader, terminal, skipped=skipped)
        self._unposted: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._screen)
        # This runs last, to include changes after the last round of the thread.
        self._stack.callback(self._round)
        self._stack.enter_context(run_periodically(REFRESH_S, self._round, name="monitor"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def show_stopping(self) -> None:
        """Confirm an interrupt at once, because ending the running trials takes some seconds."""
        self._screen.print_line(
            "stopping; the same command resumes from the last checkpoints (again: stop at once)"
        )

    def show_once(self) -> None:
        """Print the current table of a sweep with nothing left to run."""
        self._reader.refresh()
        self._screen.print_table()

    def _round(self) -> None:
        changed = self._reader.refresh()
        self._screen.update(changed)
        self._unposted.update(
            trial.id for trial in self._reader.statuses(changed) if trial.state != "pending"
        )
        # Trials that MLflow did not accept are retried in the next round.
        self._unposted = {one for one in self._unposted if not self._tracker.sync_trial(one)}
