"""Lock a folder for one sweep at a time, and check whether a sweep runs in it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from orchestrator.foundation.shell_words import shell_path
from orchestrator.record.folder import SweepFolder
from trainers.foundation.errors import InputError, Problem

# Retry for this long, because `is_running` holds the lock for a moment.
LOCK_TIMEOUT_S = 1.0
POLL_S = 0.05


@contextmanager
def sweep_lock(folder: SweepFolder) -> Iterator[None]:
    """Lock the folder while a sweep runs, and delete stop requests of an earlier sweep.

    Raises:
        InputError: another sweep runs in the folder.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.root / ".lock", timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire(poll_interval=POLL_S)
    except Timeout:
        sweep = shell_path(folder.relative())
        raise InputError(
            Problem(
                message="another sweep is running in this folder",
                where=str(folder.root),
                fix=f"watch it with plw status {sweep}, stop it with plw stop {sweep}, or use "
                "another --output-dir",
            )
        ) from None
    try:
        folder.clear_stop_requests()
        yield
    finally:
        lock.release()


def is_running(folder: SweepFolder) -> bool:
    """Return whether a sweep runs in the folder, on this or another machine that shares it."""
    try:
        with (folder.root / ".lock").open("rb") as file:
            # Unlike filelock's lock, this lock is shared and read-only: two watchers do not mistake
            # each other for the sweep, and watching needs only read access to the folder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        # The file is locked, or the file system does not support locks. In the latter case,
        # filelock uses the existence of the file as the lock.
        return True
    return False
