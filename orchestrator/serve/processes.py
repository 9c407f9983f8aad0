"""Start, find and signal the processes of jobs. A job's process runs while its lock is held."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.serve.paths import JobFolder


class JobProcesses:
    """The processes of all jobs, including those that an earlier server started."""

    def __init__(self, grace_s: float = 120.0) -> None:
        """
        Args:
            grace_s: time for a checkpoint after SIGTERM; then the process is killed.
        """
        self._grace_s = grace_s
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stop_sent: dict[str, float] = {}

    def start(self, folder: JobFolder, stage: str) -> None:
        """Start a stage; the process inherits the lock, so there is never a second one.

        Raises:
            BlockingIOError: a process of the job is running.
            OSError: the process or a file cannot be created.
        """
        lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            folder.exit_json.unlink(missing_ok=True)
            home = str(Path(__file__).resolve().parents[2])
            paths = filter(None, [home, os.environ.get("PYTHONPATH")])
            with folder.log.open("ab") as log:
                self._children[folder.root.name] = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "orchestrator.serve.worker"),
                        *(str(folder.root), stage, str(lock)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder.root,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    pass_fds=[lock],
                    start_new_session=True,
                )
            self._stop_sent.pop(folder.root.name, None)
        finally:
            os.close(lock)

    def is_alive(self, folder: JobFolder) -> bool:
        """Return whether a process of the job runs, started by this or an earlier server."""
        child = self._children.get(folder.root.name)
        if child is not None:
            child.poll()  # Also collects a zombie.
        try:
            lock = os.open(folder.lock, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def exit_code(self, folder: JobFolder) -> int | None:
        """Return the exit code of a job's last process; None if another server started it."""
        child = self._children.get(folder.root.name)
        return None if child is None else child.wait()

    def forget(self, folder: JobFolder) -> None:
        """Drop the exit code of a job's last process, once it is recorded."""
        self._children.pop(folder.root.name, None)
        self._stop_sent.pop(folder.root.name, None)

    def stop(self, folder: JobFolder) -> None:
        """Ask the living process of a job to write a checkpoint and end; kill it if it is late."""
        text = folder.lock.read_text(encoding="utf-8")
        if not text:
            return  # It has not yet written its id; the next call finds it.
        now = time.monotonic()
        sent = self._stop_sent.setdefault(folder.root.name, now)
        if sent == now:
            _signal(int(text), signal.SIGTERM)
        elif now - sent > self._grace_s:
            _signal(int(text), signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    # The id is that of the lock's holder: it was written under the lock, which is still held.
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
