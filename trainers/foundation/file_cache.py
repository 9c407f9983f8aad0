"""Files in the cache folder that one process writes and all others read."""

import errno
import logging
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from trainers.foundation.cache_dirs import cache_dir
from trainers.foundation.errors import InputError, Problem

log = logging.getLogger(__name__)

T = TypeVar("T")

# Number of files of one kind to keep, most recently used first.
MAX_FILES = 20

_ABANDONED_S = 24 * 3600
_POLL_INTERVAL_S = 0.2
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class CorruptFileError(Exception):
    """A cache file with other content than was written."""


def load_or_write(
    name: str,
    *,
    content: str,
    read: Callable[[Path], T],
    write: Callable[[Path], None],
    is_main: bool = True,
) -> T | None:
    """Return the content of a file of the cache folder, after writing it if it is missing.

    One process of this machine writes, the others wait for it. The operating system releases its
    lock if it is killed. Where the file system has no locks, all of them write. A file appears only
    when it is complete; a corrupt one is replaced.

    Args:
        name: the path below the cache folder, KIND/KEY.SUFFIX. The key must contain everything that
            the content depends on.
        content: what the file contains, for messages.
        read: returns the content; raises OSError if there is no such file, and CorruptFileError.
        write: writes the file at the given temporary path.
        is_main: log warnings.

    Returns:
        The content; None if the default cache folder is not writable.

    Raises:
        InputError: the folder in PLW_CACHE_DIR is not writable, or a disk is full.
    """
    path = cache_dir() / name
    found = _try_read(path, read, is_main)
    if found is not None:
        return found
    locks = cache_dir() / "locks"
    try:
        for folder in (path.parent, locks):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{path.stem}.lock", poll_interval=_POLL_INTERVAL_S):
            # Another process may have written it in the meantime.
            found = _try_read(path, read, is_main=False)
            if found is None:
                _write(path, write)
                found = read(path)
    except (OSError, NotImplementedError) as error:
        _report_write_error(path.parent, content, error, is_main)
        return None
    _remove_old_files(path.parent)
    return found


def _try_read(path: Path, read: Callable[[Path], T], is_main: bool) -> T | None:
    try:
        content = read(path)
    except CorruptFileError as error:
        if is_main:
            log.warning("%s is corrupt and is rebuilt: %s", path, error)
        return None
    except OSError:  # If unreadable, writing the file reports the reason.
        return None
    with suppress(OSError):  # A shared folder may be read-only for this user.
        os.utime(path)  # Record the last use.
    return content


def _write(path: Path, write: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _report_write_error(folder: Path, content: str, error: Exception, is_main: bool) -> None:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number is not None else str(error)
    if os.environ.get("PLW_CACHE_DIR") or number in _NO_SPACE:
        kind = "folder with more space" if number in _NO_SPACE else "writable folder"
        raise InputError(
            Problem(
                message=f"the {content} cannot be written: {reason}",
                where=str(folder),
                fix=f"set PLW_CACHE_DIR to a {kind}",
            )
        ) from None
    if is_main:
        log.warning("%s are not cached: %s cannot be written: %s", content, folder, reason)


def _remove_old_files(folder: Path) -> None:
    """Keep the `MAX_FILES` most recently used files, and remove files of killed writers."""
    now = time.time()
    # Other processes may remove the same files, and some file systems do not allow it.
    with suppress(OSError):
        files = [path for path in folder.iterdir() if not path.name.startswith(".")]
        by_age = sorted(files, key=lambda path: -path.stat().st_mtime)
        abandoned = [
            path for path in folder.glob(".*.tmp") if now - path.stat().st_mtime > _ABANDONED_S
        ]
        for path in [*by_age[MAX_FILES:], *abandoned]:
            path.unlink(missing_ok=True)
