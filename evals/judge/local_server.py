"""Serve a model on this machine as a judge, with `transformers serve`.

The server answers concurrent requests in one batch (continuous batching).
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evals.engine.server_process import SERVING_MODULE, ServerProcess, free_port
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.extras import require_package

_WHERE = "evals.judge.local_model"
# Memory for keys and values: on a CPU, 512 blocks of 64 tokens; on a GPU, a share of the memory
# that the scored model leaves free.
_CPU_OPTIONS = ("--dtype", "float32", "--cb-block-size", "64", "--cb-num-blocks", "512")
_GPU_OPTIONS = ("--dtype", "auto", "--cb-max-memory-percent", "0.4")


class _KeptServers:
    """The running servers by model, with their URLs; None outside of `kept_servers`."""

    by_model: dict[str, tuple[ServerProcess, str]] | None = None


_kept = _KeptServers()


@contextmanager
def kept_servers() -> Iterator[None]:
    """Keep servers running until the block ends, for a process that scores several models."""
    servers = _kept.by_model = {}
    try:
        yield
    finally:
        _kept.by_model = None
        for process, _ in servers.values():
            process.stop()


@contextmanager
def serve_model(model: str, *, timeout_s: float) -> Iterator[tuple[str, str]]:
    """Serve `model` on a free loopback port until the block ends; yield URL and model name.

    Within `kept_servers`, the server outlives the block and is used again. The server and all its
    child processes end with this process at the latest.

    Raises:
        InputError: the model cannot be served, or does not answer within `timeout_s`.
    """
    folder = Path(model).expanduser()
    name = str(folder.resolve()) if folder.is_dir() else model
    kept = (_kept.by_model or {}).get(name)
    if kept is not None and kept[0].is_running():
        yield kept[1], name
        return
    _check_servable(folder, name)
    process, url = _start(name, timeout_s, is_folder=folder.is_dir())
    if _kept.by_model is not None:
        _kept.by_model[name] = process, url
    try:
        yield url, name
    finally:
        if _kept.by_model is None:
            process.stop()


def _check_servable(folder: Path, name: str) -> None:
    require_package(SERVING_MODULE, feature="a local judge", extra="judge")
    if not folder.is_dir():
        if name.startswith((".", "/", "~")):
            raise _input_error(f"there is no model folder {name}", "set a folder or a hub name")
        return
    if "@" in name:  # `transformers serve` treats the part after @ as a revision.
        raise _input_error(
            f"the path of a local judge must not contain @, got {name}",
            "use a symbolic link to the folder",
        )
    if not _has_chat_template(folder):
        raise _input_error(
            f"the model in {name} has no chat template, which a judge needs",
            "use a model that is tuned for chat",
        )


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    with suppress(OSError, ValueError):
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return bool(settings.get("chat_template"))
    return False


def _start(name: str, timeout_s: float, *, is_folder: bool) -> tuple[ServerProcess, str]:
    """Return a server that answers, and the URL of its API."""
    import torch

    port = free_port()
    options = _GPU_OPTIONS if torch.cuda.is_available() else _CPU_OPTIONS
    environment = {**os.environ, "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    if is_folder:
        environment["HF_HUB_OFFLINE"] = "1"
    process = ServerProcess(
        [
            *(sys.executable, "-m", "transformers.cli.transformers", "serve", name),
            *("--host", "127.0.0.1", "--port", str(port), "--continuous-batching", *options),
        ],
        environment,
        name=f"the local judge {name}",
        where=_WHERE,
    )
    process.wait_until_ready(
        f"http://127.0.0.1:{port}/health",
        timeout_s,
        died_fix="run `transformers serve` with this model to find the cause",
        slow_fix="raise evals.judge.start_timeout_s, or use a smaller model",
    )
    return process, f"http://127.0.0.1:{port}/v1"


def _input_error(message: str, fix: str) -> InputError:
    return InputError(Problem(message=message, where=_WHERE, fix=fix))
