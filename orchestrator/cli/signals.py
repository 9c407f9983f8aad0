"""End as by Ctrl-C where a supervisor asks a process to end, as Ray does with a stopped job."""

import os
import signal
import threading
from types import FrameType


def interrupt_on_terminate() -> None:
    """Let SIGTERM do what SIGINT does from here on: running trials write a checkpoint and end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGINT)
