"""SIGKILL processes of `plw` at random. Nothing here knows what the processes do."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from tests.e2e.plw import MARK, PAUSE
from tests.e2e.serve import Serve

_RESTART_POLL_S = 0.2


@dataclass(frozen=True)
class Killer:
    """Kills processes whose environment has `MARK` with the value `mark`."""

    mark: str
    choose: random.Random

    def victims(self) -> list[psutil.Process]:
        """Return the living processes with the mark."""
        found = []
        for process in psutil.process_iter():
            try:
                is_marked = process.environ().get(MARK) == self.mark
                if is_marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill_one(self) -> psutil.Process:
        """Kill one process and return it."""
        chosen = self.choose.choice(self.victims())
        chosen.name()  # psutil keeps it, so that messages can show it afterwards.
        chosen.kill()
        psutil.wait_procs([chosen], timeout=60)
        return chosen

    def strike(self) -> str:
        """Kill one process or, like a power cut, all of them; return a description."""
        alive = self.victims()
        is_power_cut = self.choose.random() < 1 / 3
        chosen = alive if is_power_cut or not alive else [self.choose.choice(alive)]
        for process in chosen:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(chosen, timeout=60)
        return f"{'all' if is_power_cut else 'one'} of {len(alive)} processes"


@contextmanager
def restarting(serve: Serve) -> Iterator[None]:
    """Start the server again whenever it has ended, as systemd does with Restart=always."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_RESTART_POLL_S):
            if not serve.is_running():
                serve.launch()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def wait_random(choose: random.Random, longest_s: float) -> float:
    """Wait for a random time of at most `longest_s` and return it."""
    waited = choose.uniform(0, longest_s)
    PAUSE.wait(waited)
    return waited
