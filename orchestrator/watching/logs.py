"""A sweep's logs: which file it is, its last lines, and what is added while it is written."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.record.folder import RUNNING, SweepFolder
from orchestrator.record.lock import is_running
from orchestrator.watching.lookup import find_trial
from trainers.foundation.errors import InputError, Problem

POLL_S = 0.3
CHUNK_BYTES = 65536
SWEEP, UNTUNED = "sweep", "untuned"


@dataclass(frozen=True, kw_only=True)
class Log:
    """A log file and the trial that writes it, if one does."""

    path: Path
    trial_id: str | None = None


def find_log(folder: SweepFolder, name: str) -> Log:
    """The log of a trial, by its id or the beginning of one, of the sweep, or of scoring untuned.

    Raises:
        InputError: no single trial is called that, or there is no such log.
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
                message="several untuned models were scored" if found else "no untuned log yet",
                where=str(folder.relative()),
                fix=f"open one of {paths}" if found else "look again once it is scored",
            )
        )
    return Log(path=found[0])


def check_log(log: Log) -> None:
    """Raise InputError if the log was not begun yet."""
    if not log.path.exists():
        raise InputError(
            Problem(
                message="no log yet: it has not been started",
                where=str(log.path),
                fix="wait for it with --follow, or look at plw status",
            )
        )


def last_lines(path: Path, count: int | None) -> tuple[str, int]:
    """The last `count` lines, or all for None, and the offset in bytes at which they end."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = 0 if count is None else _start_of_last(file, end, count)
        file.seek(start)
        return _decode(file.read(end - start)), end


def _start_of_last(file: BinaryIO, end: int, count: int) -> int:
    """The offset at which the last `count` lines of a file of `end` bytes begin."""
    if count == 0:
        return end
    position, left = end, count
    while position > 0:
        size = min(CHUNK_BYTES, position)
        position -= size
        file.seek(position)
        chunk = file.read(size)
        index = size
        while (index := chunk.rfind(b"\n", 0, index)) >= 0:
            # The end of the last line begins no other one.
            left -= position + index != end - 1
            if left == 0:
                return position + index + 1
    return 0


def follow(folder: SweepFolder, log: Log, start: int) -> Iterator[str]:
    """What is added to a log past the offset `start`, until its trial or the sweep has ended.

    A log that is begun anew, as by a new attempt, is given from its beginning.
    """
    position = start
    while True:
        # Asked first: what is written at the very end is given, too.
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
