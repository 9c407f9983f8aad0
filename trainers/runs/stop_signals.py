"""End a fine-tune before its last step, after SIGTERM or at the caller's request."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from trainers.engine.ranks import Ranks

# checkpoint: write a checkpoint and end, to resume later.
# discard: end and delete the checkpoints.
StopRequest = Literal["checkpoint", "discard"]


class Interrupted(SystemExit):
    """Raised after SIGTERM or a request, once a checkpoint for resuming has been written.

    A process that continues with another run must catch it.
    """

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Stopped(Exception):
    """Raised when a run was discarded: its metrics remain, but no checkpoint and no model."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int]]:
        # Pickle rebuilds an exception from its args; Ray sends our exceptions between processes.
        return (Stopped, (self.step,))


@contextmanager
def handle_sigterm() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets, if this is the main thread, which can handle signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)


def agree_on_stop(
    ranks: Ranks,
    terminated: threading.Event,
    get_stop_request: Callable[[], StopRequest | None] | None,
    *,
    is_late: bool,
) -> tuple[StopRequest | None, bool]:
    """Return the stop request of any rank, and whether a checkpoint is late on any rank.

    Both are the same on all ranks; a collective operation. "checkpoint" takes precedence over
    "discard", because a checkpoint can still be deleted later.

    Args:
        is_late: whether this rank's clock says that the time between checkpoints is over.
    """
    request: StopRequest | None = "checkpoint" if terminated.is_set() else None
    if request is None and get_stop_request is not None:
        request = get_stop_request()
    num_checkpoint, num_discard, num_late = ranks.sum(
        [request == "checkpoint", request == "discard", is_late]
    )
    agreed: StopRequest | None = "discard" if num_discard else None
    return "checkpoint" if num_checkpoint else agreed, bool(num_late)
