"""Read a file that another node has just written to a shared file system."""

import time
from collections.abc import Callable
from typing import TypeVar

Read = TypeVar("Read")

# NFS clients remember for 30 to 60 s that a name was missing.
VISIBLE_WITHIN_S = 120.0
POLL_S = 0.5


def read_when_visible(
    read: Callable[[], Read | None], timeout_s: float = VISIBLE_WITHIN_S
) -> Read | None:
    """Return what `read` returns once it is not None; None if it stays None for `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while (found := read()) is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return found


def invisible_reason(name: str) -> str:
    """Return the reason for a trial that failed because a finished file cannot be seen."""
    return (
        f"{name} was written by a worker, but is not visible on this node after "
        f"{VISIBLE_WITHIN_S:.0f} s; mount shared storage on all nodes, NFS with "
        "lookupcache=positive"
    )
