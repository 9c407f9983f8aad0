"""Find, read and follow the logs of a sweep."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.monitoring.lookup import SWEEP, UNTUNED, find_trial
from orchestrator.record.folder import RUNNING, SweepFolder
from orchestrator.record.lock import is_running
from trainers.foundation.errors import InputError, Problem

POLL_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log file, and the trial that writes it, if any."""

    path: Path
    trial_id: str | None = None


def find_log(folder: SweepFolder, name: str) -> Log:
    """Return the log of a trial (by id or prefix), of the sweep, or of the untuned model.

    Raises:
        InputError: no or several trials match, or the log does not exist.
    """
    if name == SWEEP:
        return Log(path=folder.log)
    if name != UNTUNED:
        trial_id = find_trial(folder, name)
        return Log(path=folder.trial(trial_id) / "log.txt", trial_id=trial_id)
    found = sorted(folder.root.glob("bases/*/log.txt"))
    if len(found) != 1:
        paths = ", ".join(str(path) for path in found)
        raise InputError(
            Problem(
                message="several untuned models were scored"
                if found
                else "no untuned model log yet",
                where=str(folder.relative()),
                fix=f"open one of {paths}" if found else "try again once its scoring has started",
            )
        )
    return Log(path=found[0])


def check_log(log: Log) -> None:
    """Raise InputError if the log does not exist yet."""
    if not log.path.exists():
        raise InputError(
            Problem(
                message="no log yet: the trial has not started",
                where=str(log.path),
                fix="wait for it with --follow, or check plw status",
            )
        )


def last_lines(path: Path, count: int | None) -> tuple[str, int]:
    """Return the last `count` lines (None: all lines) and the byte offset of their end."""
    with path.open("rb") as file:
        lines = deque(file, maxlen=count)
        return _decode(b"".join(lines)), file.tell()


def follow(folder: SweepFolder, log: Log, start: int) -> Iterator[str]:
    """Yield text that is appended to a log after byte offset `start`, until its trial ends.

    The log of the sweep is followed until the sweep ends. A log that is overwritten, for example by
    a new attempt, is read from its beginning.
    """
    position = start
    while True:
        # Check this before reading, so that the last lines are not lost.
        is_written = _is_written(folder, log)
        size = log.path.stat().st_size if log.path.exists() else 0
        if size < position:
            position = 0
        if size > position:
            with log.path.open("rb") as file:
                file.seek(position)
                chunk = file.read(size - position)
            position = size
            yield _decode(chunk)
        if not is_written:
            return
        time.sleep(POLL_S)


def _is_written(folder: SweepFolder, log: Log) -> bool:
    if not is_running(folder):
        return False
    record = None if log.trial_id is None else folder.read_trial(log.trial_id)
    return record is None or record.state in ("pending", "waiting", *RUNNING)


def _decode(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")
