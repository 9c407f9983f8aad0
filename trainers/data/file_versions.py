"""Versions of the files of a data set: if they are equal, so is the content."""

import time
from collections.abc import Sequence
from pathlib import Path

from trainers.foundation.files import sha256_file

# Smaller files are hashed, which takes at most about 0.1 s.
_MAX_HASHED_BYTES = 64 * 2**20
# Two changes within one tick of the file system's clock, at most 10 ms, have the same time.
_CLOCK_TICK_S = 0.1

FileVersion = tuple[str | int, ...]


def file_versions(paths: Sequence[Path]) -> tuple[FileVersion, ...]:
    """Return the version of each file without reading large ones.

    It is the digest of a small file. A large file has size, times of the last change, device and
    inode; no program can set the time of its change (ctime).

    Raises:
        OSError: a file does not exist or cannot be read.
    """
    return tuple(_version(path) for path in paths)


def _version(path: Path) -> FileVersion:
    stat = path.stat()
    if stat.st_size <= _MAX_HASHED_BYTES:
        return (sha256_file(path),)
    # A file that has just been changed may change again with the same time.
    age_s = time.time() - stat.st_ctime
    if age_s < _CLOCK_TICK_S:
        time.sleep(_CLOCK_TICK_S)
        stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino)
