"""Start, monitor and stop an HTTP server on this machine, such as vLLM or a local judge."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx2

from trainers.foundation.errors import InputError, Problem

# `transformers serve` imports it; the other packages of `transformers[serving]` are dependencies.
SERVING_MODULE = "openai"

_POLL_S = 0.2
_ANSWER_S = 5.0
_STOP_S = 10.0
_MAX_SHOWN = 300
_SUPERVISOR = Path(__file__).with_name("supervised_command.py")


class ServerProcess:
    """A server that ends with `stop`, or with this process, together with all its processes.

    Args:
        command: program and arguments.
        environment: the environment of the command.
        name: the server in messages, such as "the local judge NAME".
        where: the setting that messages refer to.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, name: str, where: str
    ) -> None:
        self._name = name
        self._where = where
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # Closed by stop.
        self._process = subprocess.Popen(
            [sys.executable, str(_SUPERVISOR), *command],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )

    def wait_until_ready(self, url: str, timeout_s: float, *, slow_fix: str, died_fix: str) -> None:
        """Wait until a GET of `url` succeeds.

        Raises:
            InputError: the server ends or does not answer within `timeout_s`. It is stopped.
        """
        try:
            self._wait_until_ready(url, timeout_s, slow_fix=slow_fix, died_fix=died_fix)
        except BaseException:  # Also an interrupt.
            self.stop()
            raise

    def _wait_until_ready(
        self, url: str, timeout_s: float, *, slow_fix: str, died_fix: str
    ) -> None:
        deadline = time.monotonic() + timeout_s
        with httpx2.Client(timeout=_ANSWER_S, trust_env=False) as http:
            while True:
                if (code := self._process.poll()) is not None:
                    self._fail(f"ended with {code} before it answered", died_fix)
                with suppress(httpx2.TransportError):
                    if http.get(url).is_success:
                        return
                if time.monotonic() > deadline:
                    self._fail(f"did not answer within {timeout_s:g} s", slow_fix)
                time.sleep(_POLL_S)

    def is_running(self) -> bool:
        """Return whether the server has not ended."""
        return self._process.poll() is None

    def ends_within(self, timeout_s: float) -> bool:
        """Return whether the server ends within `timeout_s`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return not self.is_running()

    def last_line(self) -> str:
        """Return the last line that the server has printed."""
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        stripped = [line.strip(" │╭╰─╯╮") for line in lines]
        return next((line for line in reversed(stripped) if line), "no output")[-_MAX_SHOWN:]

    def stop(self) -> None:
        """Stop the server's process group with SIGTERM, then SIGKILL."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, kind)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
                break
        # Stop child processes that are still running after the server ended.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._log.close()

    def _fail(self, fault: str, fix: str) -> None:
        message = f"{self._name} {fault}: {self.last_line()}"
        raise InputError(Problem(message=message, where=self._where, fix=fix))


def free_port() -> int:
    """Return a free port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
