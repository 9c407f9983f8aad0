"""Model servers for chat and completions: `transformers serve`, started on demand."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import httpx2

from evals.engine.server_process import SERVING_MODULE, ServerProcess, free_port
from orchestrator.serve.config import InferenceConfig
from orchestrator.serve.errors import ApiError
from trainers.demo.model import DEMO_MODEL, demo_model_path

log = logging.getLogger(__name__)

_POLL_S = 0.2


@dataclass
class _Server:
    """A server process."""

    process: ServerProcess
    url: str
    num_requests: int = 0
    last_used: float = field(default_factory=time.monotonic)
    is_ready: bool = False


class ModelServers:
    """At most `at_once` servers, by the path of their model; the least recently used one ends."""

    def __init__(self, config: InferenceConfig) -> None:
        self._config = config
        self._servers: dict[str, _Server] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def use(self, path: str) -> AsyncIterator[tuple[str, str]]:
        """Yield the URL of a server of the model in `path`, and the model's name there.

        The server is not stopped for another model inside the block.

        Raises:
            ApiError: all servers are busy, or the model cannot be served.
        """
        name = str(demo_model_path()) if path == DEMO_MODEL else path
        async with self._lock:
            server = self._servers.get(name)
            if server is None or not server.process.is_running():
                await self._make_room(name)
                server = self._servers[name] = self._start(name)
            server.num_requests += 1
        try:
            await self._wait_until_ready(server)
            yield server.url, name
        finally:
            server.num_requests -= 1
            server.last_used = time.monotonic()

    async def _make_room(self, name: str) -> None:
        ended = [key for key, one in self._servers.items() if not one.process.is_running()]
        for key in {name, *ended} & self._servers.keys():
            del self._servers[key]
        while len(self._servers) >= self._config.at_once:
            idle = [key for key, one in self._servers.items() if not one.num_requests]
            if not idle:
                raise ApiError(
                    503,
                    "All model servers are busy with other models; try again later.",
                    type="server_error",
                    code="model_servers_busy",
                    headers={"Retry-After": "5"},
                )
            oldest = min(idle, key=lambda key: self._servers[key].last_used)
            await asyncio.to_thread(self._servers.pop(oldest).process.stop)

    def _start(self, name: str) -> _Server:
        if find_spec(SERVING_MODULE) is None:
            log.warning("answers of models need: pip install 'plw-sweep[serve]'")
            raise ApiError(
                503,
                "This server cannot run models: plw-sweep[serve] is not installed.",
                type="server_error",
                code="inference_not_installed",
            )
        port = free_port()
        environment = {**os.environ, "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        if Path(name).is_dir():
            environment["HF_HUB_OFFLINE"] = "1"
        # Half precision is slow on a CPU; torch is not imported here, so the device file decides.
        dtype = "auto" if Path("/dev/nvidia0").exists() else "float32"
        process = ServerProcess(
            [
                *(sys.executable, "-m", "transformers.cli.transformers", "serve", name),
                *("--host", "127.0.0.1", "--port", str(port), "--dtype", dtype),
            ],
            environment,
            name="the model server",
            where="inference",
        )
        return _Server(process, f"http://127.0.0.1:{port}")

    async def _wait_until_ready(self, server: _Server) -> None:
        deadline = time.monotonic() + self._config.start_timeout_s
        async with httpx2.AsyncClient(timeout=5.0, trust_env=False) as http:
            while not server.is_ready:
                if not server.process.is_running():
                    log.warning("a model server ended: %s", server.process.last_line())
                    raise ApiError(
                        503,
                        "The model could not be loaded.",
                        type="server_error",
                        code="model_not_loadable",
                    )
                if time.monotonic() > deadline:
                    raise ApiError(
                        503,
                        "The model did not load in time; try again later.",
                        type="server_error",
                        code="model_loading",
                        headers={"Retry-After": "30"},
                    )
                with suppress(httpx2.TransportError):
                    server.is_ready = (await http.get(f"{server.url}/health")).is_success
                if not server.is_ready:
                    await asyncio.sleep(_POLL_S)

    def stop(self, path: str) -> None:
        """Stop the server of a model that is deleted, if there is one."""
        server = self._servers.pop(path, None)
        if server is not None:
            server.process.stop()

    def close(self) -> None:
        """Stop all servers."""
        for path in list(self._servers):
            self.stop(path)
