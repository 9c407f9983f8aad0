"""Run a command that ends together with the process that started it.

Usage: `python supervised_command.py COMMAND ...`. The command and all processes that it starts end
when standard input closes, which also happens if the starting process is killed. This file is run
by its path, so the command's environment needs no PYTHONPATH of ours.
"""

import os
import signal
import subprocess
import sys
import threading

import psutil


def main(command: list[str]) -> int:
    """Return the exit code of `command`."""
    # SIGTERM goes to the whole process group. The command may take time to end, so wait for it. The
    # handler is reset in the command, which an ignored signal would not be.
    signal.signal(signal.SIGTERM, lambda *_: None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    is_ending = threading.Event()
    killer = threading.Thread(target=_end_with_input, args=(is_ending,), daemon=True)
    killer.start()
    code = process.wait()
    if is_ending.is_set():
        # The killer ends this process last. Returning now would end it before it has killed all.
        killer.join()
    return code


def _end_with_input(is_ending: threading.Event) -> None:
    # Do not use sys.stdin: the interpreter needs its lock at shutdown.
    while os.read(0, 1):
        pass
    is_ending.set()
    for process in psutil.Process().children(recursive=True):  # Also those in other groups.
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
