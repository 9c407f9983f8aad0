"""Follow a running sweep from its driver, by its files: onto the screen and into MLflow."""

from contextlib import ExitStack
from typing import Protocol, Self, TextIO

from orchestrator.foundation.periodic import every
from orchestrator.record.folder import SweepFolder
from orchestrator.record.reader import SweepReader
from orchestrator.watching.watch import Screen

REFRESH_S = 1.0


class TrialSink(Protocol):
    """What takes the progress of trials: the tracker."""

    def sync_trial(self, trial_id: str) -> bool:
        """Whether it has all of the trial now."""


class Follower:
    """Shows the trials of a sweep and posts their progress to MLflow, from a thread of its own.

    It only reads what the trials write, so nothing that it does can disturb them; a round costs
    what has changed, and a look at the times of the files.
    """

    def __init__(
        self, folder: SweepFolder, tracker: TrialSink, terminal: TextIO | None, *, skipped: set[str]
    ) -> None:
        self._reader = SweepReader(folder)
        self._tracker = tracker
        self._screen = Screen(self._reader, terminal, skipped=skipped)
        self._unposted: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._screen)
        # What came after the last round in the thread.
        self._stack.callback(self._round)
        self._stack.enter_context(every(REFRESH_S, self._round, name="follower"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def say_stopping(self) -> None:
        """Answer an interrupt at once: ending what runs takes some seconds."""
        self._screen.say(
            "stopping; the same command goes on from the last checkpoints (again: stop at once)"
        )

    def show_once(self) -> None:
        """Print the table as it is, for a sweep with nothing left to run."""
        self._reader.refresh()
        self._screen.print_table()

    def _round(self) -> None:
        changed = self._reader.refresh()
        self._screen.update(changed)
        self._unposted.update(
            trial.id for trial in self._reader.statuses(changed) if trial.state != "pending"
        )
        # What MLflow did not take is tried again in the next round.
        self._unposted = {one for one in self._unposted if not self._tracker.sync_trial(one)}
