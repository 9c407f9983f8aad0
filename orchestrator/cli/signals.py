"""Exit codes of `plw`, and SIGTERM, which Ray, Slurm, systemd and Kubernetes send to end a job."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

FAILURE = 1
BAD_INPUT = 2
# A sweep finished, but some of its trials failed.
FAILED_TRIALS = 3
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def interrupt_on_terminate() -> Callable[[], int]:
    """Handle SIGTERM like SIGINT: running trials write a checkpoint and end.

    Returns:
        A function that returns the exit code of an interrupted command: 143 if SIGTERM came, else
            130.
    """
    terminated = threading.Event()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        # systemd and Slurm signal each process, so that a forwarded signal arrives twice. A second
        # SIGINT would end the command before its checkpoints are written.
        if terminated.is_set():
            return
        terminated.set()
        os.kill(os.getpid(), signal.SIGINT)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
    return lambda: TERMINATED if terminated.is_set() else INTERRUPTED
