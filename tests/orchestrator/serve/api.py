"""A server over real HTTP without running jobs, and the official client for it."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import uvicorn

from orchestrator.serve.app import Service, create_app
from orchestrator.serve.config import ServeConfig
from orchestrator.serve.paths import DataFolder

SETTINGS = {
    "data": {"max_length": 64},
    "optimizer": {"learning_rate": 1e-2},
    "schedule": {"epochs": 2.0},
    "batch": {"global_batch_size": 8, "micro_batch_size": 4},
    "deepspeed": {"zero_stage": 1, "precision": "float32"},
    "checkpoint": {"every_steps": 2},
}
_DEADLINE_S = 30


def chat_lines(count: int = 12) -> list[str]:
    """Return lines of a training file: sums as chats."""
    return [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Add {i} and {i + 1}."},
                    {"role": "assistant", "content": str(2 * i + 1)},
                ]
            }
        )
        for i in range(count)
    ]


def jsonl(lines: list[str], name: str = "train.jsonl") -> tuple[str, io.BytesIO]:
    """Return a file for an upload."""
    return name, io.BytesIO("".join(f"{line}\n" for line in lines).encode())


@dataclass
class Server:
    """A running server. Jobs stay queued, because nothing starts the runner."""

    service: Service
    url: str

    def client(self, key: str = "none", **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)


def config_of(model: Path, **changes: Any) -> ServeConfig:
    """Return a configuration with the model `tiny`."""
    entry = {"path": str(model), "settings": SETTINGS}
    return ServeConfig.model_validate({"models": {"tiny": entry}, **changes})


@contextmanager
def serving(config: ServeConfig, data: Path) -> Iterator[Server]:
    """Serve the API on a free port until the block ends."""
    service = Service.open(config, DataFolder(data))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            host="127.0.0.1",
            port=0,
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _DEADLINE_S
    pause = threading.Event()
    while not server.started:
        assert time.monotonic() < deadline
        pause.wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Server(service, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join()
