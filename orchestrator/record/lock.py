"""One sweep at a time in a folder, and whether one runs there now."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from orchestrator.record.folder import SweepFolder
from trainers.foundation.errors import InputError, Problem

# A look at the lock, as `is_running` takes, holds it for a moment.
LOCK_TIMEOUT_S = 1.0
POLL_S = 0.05


@contextmanager
def only_sweep_in(folder: SweepFolder) -> Iterator[None]:
    """Keep a second sweep out of the folder while this one runs.

    Requests to stop that an earlier sweep left there are dropped.

    Raises:
        InputError: another one runs in it.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.root / ".lock", timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire(poll_interval=POLL_S)
    except Timeout:
        raise InputError(
            Problem(
                message="another sweep is running in this folder",
                where=str(folder.root),
                fix="wait for it, end it with plw stop, or give another --output-dir",
            )
        ) from None
    try:
        folder.clear_stop_requests()
        yield
    finally:
        lock.release()


def is_running(folder: SweepFolder) -> bool:
    """Whether a sweep runs in the folder now, here or on another machine that shares it."""
    try:
        with (folder.root / ".lock").open("rb") as file:
            # Shared and read-only, unlike filelock's: two watchers must not take each other for
            # the sweep, and a person who may only read the folder may watch it.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        # Somebody has it; or the file system has no such locks, and filelock takes the file itself
        # for one and removes it at the end.
        return True
    return False
