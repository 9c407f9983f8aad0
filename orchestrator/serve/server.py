"""Run the server: one for each data folder, with API keys unless it listens on loopback only."""

import logging
from collections.abc import Callable

import uvicorn
from filelock import FileLock, Timeout

from orchestrator.serve.access import is_loopback
from orchestrator.serve.app import Service, create_app
from orchestrator.serve.config import ServeConfig
from orchestrator.serve.keys import Keys
from orchestrator.serve.paths import DataFolder
from orchestrator.tracking.uri import check_port
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder

# A restarted server waits this long for one that is ending.
_LOCK_TIMEOUT_S = 1.0
# Above the clients' own limits. They send a request on a connection that the server is just closing
# otherwise: httpx's limit and uvicorn's default are both 5 s.
_KEEP_ALIVE_S = 75


def serve(
    config: ServeConfig, folder: DataFolder, host: str, port: int, on_start: Callable[[], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM; running jobs then write a checkpoint.

    Args:
        on_start: called after all checks.

    Raises:
        InputError: another server uses the folder, the port is taken, or keys are missing.
    """
    check_output_folder(folder.root, where="--data")
    if not is_loopback(host) and not Keys(folder.root).all():
        raise InputError(
            Problem(
                message=f"{host} can be reached from other machines, so API keys are needed",
                where="--host",
                fix=f"run plw serve keys add NAME --data {folder.root}, or use 127.0.0.1",
            )
        )
    folder.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock, timeout=_LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            Problem(
                message="another plw serve uses this folder",
                where=str(folder.root),
                fix="stop it, or give another --data",
            )
        ) from None
    try:
        check_port(port, host)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        on_start()
        app = create_app(Service.open(config, folder))
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_level="warning",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=5,
        )
    finally:
        lock.release()
