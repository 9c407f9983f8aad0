"""Run a function periodically in a background thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def run_periodically(
    interval_s: float, function: Callable[[], None], *, name: str
) -> Iterator[None]:
    """Call `function` every `interval_s` seconds in a thread called `name` until the block ends.

    Leaving the block waits for a running call. No call starts afterwards.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(interval_s):
            function()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
