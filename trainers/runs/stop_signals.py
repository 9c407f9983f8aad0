"""Ending a fine-tune before its last step: by SIGTERM, or because whoever runs it wishes so."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from trainers.engine.ranks import Ranks

# checkpoint: write one and end, to go on later; discard: end at once and delete checkpoints.
Stop = Literal["checkpoint", "discard"]


class Interrupted(SystemExit):
    """A checkpoint was written, for SIGTERM or a wish, and the run can be resumed.

    A process that is to go on with another run catches it.
    """

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Stopped(Exception):
    """The run was ended for good: it has left its metrics, no checkpoint and no model."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int]]:
        # Exceptions pickle by their args; ours cross process boundaries inside Ray.
        return (Stopped, (self.step,))


@contextmanager
def termination() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, where this thread may handle signals at all."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous)


def agreed_stop(
    ranks: Ranks, terminated: threading.Event, should_stop: Callable[[], Stop | None] | None
) -> Stop | None:
    """What any of the ranks wishes, the same on all of them; a collective.

    A checkpoint wins over its opposite: what was kept can still be thrown away.
    """
    wish: Stop | None = "checkpoint" if terminated.is_set() else None
    if wish is None and should_stop is not None:
        wish = should_stop()
    num_checkpoint, num_discard = ranks.sum([wish == "checkpoint", wish == "discard"])
    if num_checkpoint:
        return "checkpoint"
    return "discard" if num_discard else None
