"""Whether a sweep advances, from its files: new steps, new results, any activity."""

import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator.record.folder import SweepFolder
from orchestrator.record.lock import is_running
from orchestrator.record.reader import last_metrics

# Written every few seconds by a thread, also while the training hangs.
_NO_ACTIVITY = "system.jsonl"
_KINDS = ("trials", "bases")


class SweepProgress:
    """The progress of the sweep in a folder, which may not exist yet."""

    def __init__(self, folder: SweepFolder, *, may_wait: bool) -> None:
        """Create the view.

        Args:
            may_wait: whether trials may wait for resources of a cluster without a limit.
        """
        self._folder, self._may_wait = folder, may_wait

    def num_gained(self) -> int:
        """Return the number of logged steps, and of results of evaluations."""
        root = self._folder.root
        logged = (last_metrics(path) for path in root.glob("trials/*/metrics.jsonl"))
        results = (path for kind in _KINDS for path in root.glob(f"{kind}/*/parts/*.json"))
        return sum(int(line.get("step", 0)) for line in logged) + sum(1 for _ in results)

    def activity(self) -> int | None:
        """Return a value that changes when a file of a trial or baseline is written.

        None while no sweep runs in the folder, for example while its data is prepared.
        """
        if not is_running(self._folder):
            return None
        # A sum, because the clocks of the nodes that write may differ.
        folders = (one for kind in _KINDS for one in self._folder.root.glob(f"{kind}/*"))
        return sum(time for folder in folders for time in _write_times(folder))

    def is_waiting(self) -> bool:
        """Return whether a trial waits for resources that a cluster may add at any time."""
        return self._may_wait and any(
            record.state == "waiting" for record in self._folder.read_trials()
        )


def _write_times(folder: Path) -> Iterator[int]:
    """Yield the times at which the files of a trial or baseline were written, in ns."""
    for path in (folder, folder / "parts"):
        try:
            with os.scandir(path) as entries:
                yield from (one.stat().st_mtime_ns for one in entries if one.name != _NO_ACTIVITY)
        except (FileNotFoundError, NotADirectoryError):
            # A temporary file was renamed, or there are no results yet.
            continue
