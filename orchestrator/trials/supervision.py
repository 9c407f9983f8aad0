"""Run the engine of a sweep in a child process, and start it again after Ray has failed.

When Ray's control store or node process dies, Ray's C++ code ends the process that uses Ray, up to
60 s later, with exit code 1 and without a message. So the process that the user started never
connects to Ray: it forks the engine, forwards signals to it and, after a fault, starts it again.
This is safe because the sweep's record says which trials are done and where the others continue.
"""

import ctypes
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from types import FrameType
from typing import NoReturn, Protocol, Self

import psutil

from trainers.foundation.errors import InputError, TrainingError

# Restarts without a newly logged step or score in between.
MAX_RESTARTS = 3
POLL_S = 0.1
# A step may take several times as long as the one before, for example if it writes a checkpoint.
LONGEST_GAP_FACTOR = 3
END_TIMEOUT_S = 10.0
# Exit codes of the engine. Ray's C++ code ends it with 1, so our own failures use another code.
INTERNAL_FAILURE = 70
_BAD_INPUT = 2
RAY_ERROR, CONTROL_STORE_DIED, NODE_PROCESS_DIED, DASHBOARD_DIED = 75, 76, 77, 78
_STALLED = 79
_FAULTS = {
    1: "Ray ended the sweep's process, because one of Ray's processes died",
    RAY_ERROR: "Ray reported an error",
    CONTROL_STORE_DIED: "Ray's control store (gcs_server) died",
    NODE_PROCESS_DIED: "Ray's node process (raylet) or one of its agents died",
    DASHBOARD_DIED: "Ray's dashboard process died",
    _STALLED: "the sweep made no progress (retries.stalled_minutes)",
}
_FORWARDED = (signal.SIGINT, signal.SIGTERM)
# A shell's exit code of a process that a signal ended is this and the signal's number.
_SIGNALLED = 128
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SHOW_CURSOR = "\x1b[?25h"


class Progress(Protocol):
    """What the supervisor observes of a sweep."""

    def num_gained(self) -> int:
        """Return the number of logged steps and results; a restart after a gain counts as first."""

    def activity(self) -> Hashable | None:
        """Return a value that changes whenever the sweep does something; None if no trial runs."""

    def is_waiting(self) -> bool:
        """Return whether the sweep waits for resources, which may take any time."""


def can_supervise() -> bool:
    """Return whether this process may fork: its output is a file, and it has no other thread."""
    try:
        sys.stdout.fileno()
    except (AttributeError, io.UnsupportedOperation):
        # The caller replaced sys.stdout, as tests of commands do.
        return False
    return threading.current_thread() is threading.main_thread() and threading.active_count() == 1


def supervise(
    engine: Callable[[], None],
    progress: Progress,
    *,
    stalled_s: float | None,
    on_fault: Callable[[str, int | None], None],
) -> int:
    """Run `engine` in child processes until it ends by itself, and return its exit code.

    All processes that the engine leaves behind are killed, Ray's included. With an existing
    cluster there are none: its processes are not descendants of the engine. In the child process,
    this function does not return.

    Args:
        stalled_s: restart the engine if `progress.activity` does not change for this long, and for
            `LONGEST_GAP_FACTOR` times the longest time between two changes; None: never.
        on_fault: called after a fault with its description and the number of the restart that
            follows; None if the sweep ends: after `MAX_RESTARTS` without a gain, or after a signal.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    num_restarts, most = 0, progress.num_gained()
    with _ForwardedSignals() as signals:
        while True:
            pid = _start(engine, signals)
            code = _wait(pid, _StallClock(progress, stalled_s))
            signals.pid = None
            _end_descendants()
            fault = _describe_fault(code, is_restarted=num_restarts > 0)
            if fault is None:
                return 1 if code == INTERNAL_FAILURE else code
            if sys.stdout.isatty():
                print(end=_SHOW_CURSOR, flush=True)
            if signals.received is not None:
                on_fault(fault, None)
                return _SIGNALLED + signals.received
            gained = progress.num_gained()
            num_restarts = 1 if gained > most else num_restarts + 1
            most = max(most, gained)
            if num_restarts > MAX_RESTARTS:
                on_fault(fault, None)
                return 1
            on_fault(fault, num_restarts)


class _ForwardedSignals:
    """Forwards SIGINT and SIGTERM to process `pid` while the block runs."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.received: int | None = None

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def fork(self) -> int:
        """Fork a process that gets the signals, with the handlers from before the block."""
        # Until the child has these handlers, a signal to it would be lost.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        self.pid = os.fork()
        if self.pid == 0:
            self.__exit__()
        elif self.received is not None:
            # It came while there was no child.
            os.kill(self.pid, self.received)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return self.pid

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self.pid is not None:
            os.kill(self.pid, number)


def _start(engine: Callable[[], None], signals: _ForwardedSignals) -> int:
    """Start the guard, which starts the engine; return the guard's id.

    The guard ends with the engine's exit code. It kills what the engine leaves behind even if the
    supervisor is killed: two of Ray's agents would otherwise live for another minute.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    supervisor = os.getpid()
    pid = signals.fork()
    if pid != 0:
        return pid
    # A group of its own: a terminal's Ctrl-C must reach the engine once, through the supervisor.
    os.setpgid(0, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGUSR1, _end_guard)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != supervisor:
        os._exit(1)
    guard = os.getpid()
    with _ForwardedSignals() as forwarded:
        pid = forwarded.fork()
        if pid == 0:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)
            return _run(engine)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    _end_descendants()
    os._exit(code if code >= 0 else _SIGNALLED - code)


def _end_guard(number: int, frame: FrameType | None) -> None:
    """End the guard and everything below it after the death of the supervisor."""
    _end_descendants()
    os._exit(1)


def _run(engine: Callable[[], None]) -> NoReturn:
    """Run the engine and exit; errors that the command line prints are raised."""
    code: object = 0
    try:
        engine()
    except SystemExit as ended:
        code = INTERNAL_FAILURE if ended.code == 1 else ended.code
    except (InputError, KeyboardInterrupt):
        raise
    except TrainingError as error:
        print(f"failed: {error}", file=sys.stderr)
        code = INTERNAL_FAILURE
    except BaseException as error:
        traceback.print_exc()
        code = RAY_ERROR if type(error).__module__.split(".")[0] == "ray" else INTERNAL_FAILURE
    raise SystemExit(code)


def _wait(pid: int, clock: "_StallClock") -> int:
    """Return the exit code of the engine, which is killed if it makes no progress."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if clock.is_stalled():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return _STALLED
        time.sleep(POLL_S)


class _StallClock:
    """Measures the time since the last activity of a sweep."""

    def __init__(self, progress: Progress, limit_s: float | None) -> None:
        self._progress, self._limit_s = progress, limit_s
        self._seen: Hashable | None = None
        self._since = self._next_look = time.monotonic()
        self._longest_gap_s = 0.0

    def is_stalled(self) -> bool:
        """Return whether there was no activity for too long."""
        now = time.monotonic()
        if self._limit_s is None or now < self._next_look:
            return False
        self._next_look = now + min(self._limit_s / 20, 30.0)
        activity = self._progress.activity()
        gap_s = now - self._since
        if activity is not None and activity == self._seen:
            limit_s = max(self._limit_s, LONGEST_GAP_FACTOR * self._longest_gap_s)
            if gap_s <= limit_s:
                return False
            if not self._progress.is_waiting():
                return True
        elif activity is not None and self._seen is not None:
            self._longest_gap_s = max(self._longest_gap_s, gap_s)
        self._seen, self._since = activity, now
        return False


def _describe_fault(code: int, *, is_restarted: bool) -> str | None:
    """Return what ended the engine; None if it ended by itself."""
    code = _SIGNALLED - code if code < 0 else code
    if code > _SIGNALLED and code - _SIGNALLED not in _FORWARDED:
        return f"the sweep's process was killed by {signal.Signals(code - _SIGNALLED).name}"
    if code == _BAD_INPUT and is_restarted:
        return "the sweep could not start again"
    return _FAULTS.get(code)


def _end_descendants() -> None:
    """Kill the processes that the engine has left behind and this process has adopted."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        processes = psutil.Process().children(recursive=True)
        if not processes:
            return
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        # This also collects the zombies among them.
        psutil.wait_procs(processes, timeout=1.0)


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process; only Linux has these two."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
