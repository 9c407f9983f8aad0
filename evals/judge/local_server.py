"""A judge without an endpoint: `transformers serve`, started, watched and stopped by us."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx2

from trainers.foundation.errors import InputError, Problem

_POLL_S = 0.2
_ANSWER_S = 5.0
_STOP_S = 10.0
_MAX_SHOWN = 300
_WHERE = "evals.judge.local_model"
_NEEDED = ("fastapi", "uvicorn", "openai")


@contextmanager
def served(model: str, *, timeout_s: float) -> Iterator[tuple[str, str]]:
    """The URL and model name of `model` served on a free loopback port, until the block ends.

    Its server and all of the server's children end with the block, or with this process.

    Raises:
        InputError: the model cannot be served, or does not answer within `timeout_s`.
    """
    folder = Path(model).expanduser()
    name = str(folder.resolve()) if folder.is_dir() else model
    _refuse_unservable(folder, name)
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        process = _start(name, port, log, is_folder=folder.is_dir())
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, log, name, timeout_s)
            yield f"http://127.0.0.1:{port}/v1", name
        finally:
            _stop(process)


def _refuse_unservable(folder: Path, name: str) -> None:
    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        raise _refusal(
            f"a local judge needs {', '.join(missing)}", 'pip install "transformers[serving]"'
        )
    if not folder.is_dir():
        if name.startswith((".", "/", "~")):
            raise _refusal(f"there is no model folder {name}", "give a folder or a hub name")
        return
    if "@" in name:  # transformers serve takes what follows for a revision.
        raise _refusal(f"the folder's path must hold no @, got {name}", "give the folder a link")
    if not _has_chat_template(folder):
        raise _refusal(
            f"the model in {name} has no chat template, so it cannot be asked",
            "take a model that was tuned for chat",
        )


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    with suppress(OSError, ValueError):
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return bool(settings.get("chat_template"))
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start(name: str, port: int, log: IO[bytes], *, is_folder: bool) -> subprocess.Popen[bytes]:
    # The packages need not be installed: Ray ships them as files.
    home = str(Path(__file__).resolve().parents[2])
    paths = filter(None, [home, os.environ.get("PYTHONPATH")])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
    if is_folder:
        environment["HF_HUB_OFFLINE"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "evals.judge.server_process", name, str(port)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def _wait_for(
    url: str, process: subprocess.Popen[bytes], log: IO[bytes], name: str, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    with httpx2.Client(timeout=_ANSWER_S, trust_env=False) as http:
        while True:
            if process.poll() is not None:
                raise _refusal(
                    f"the local judge {name} ended with {process.returncode} before it answered:"
                    f" {_last_line(log)}",
                    "see whether `transformers serve` with this model works on its own",
                )
            with suppress(httpx2.TransportError):
                if http.get(url).is_success:
                    return
            if time.monotonic() > deadline:
                raise _refusal(
                    f"the local judge {name} did not answer within {timeout_s:g} s:"
                    f" {_last_line(log)}",
                    "raise evals.judge.start_timeout_s, or take a smaller model",
                )
            time.sleep(_POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group, gently first."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
            break
    # What the server left behind when it went.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    process.stdin.close()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").split("\n")
    said = [line.strip(" │╭╰─╯╮") for line in lines]
    return next((line for line in reversed(said) if line), "it said nothing")[-_MAX_SHOWN:]


def _refusal(message: str, fix: str) -> InputError:
    return InputError(Problem(message=message, where=_WHERE, fix=fix))
