"""Something that is done again and again beside the work of a block."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(seconds: float, act: Callable[[], None], *, name: str) -> Iterator[None]:
    """Call `act` in a thread of that name each so many seconds, until the block ends.

    A round that is running then is waited for; there is none afterwards.
    """
    ended = threading.Event()

    def rounds() -> None:
        while not ended.wait(seconds):
            act()

    thread = threading.Thread(target=rounds, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
