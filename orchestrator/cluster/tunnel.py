"""Open SSH tunnels to ports that a cluster's head serves on its loopback address."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.foundation.shell_words import shell_path
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import read_yaml

DASHBOARD_PORT = 8265
MLFLOW_PORT = 5000
OPEN_TIMEOUT_S = 120.0
POLL_S = 0.1
TUNNEL_CHECK_S = 5.0
# Ray's launcher knows the head's address, user and key for every provider.
_OPEN = """
import sys
from ray.autoscaler.sdk import run_on_cluster
ports = (int(sys.argv[2]), int(sys.argv[3]))
run_on_cluster(sys.argv[1], cmd="cat > /dev/null", port_forward=[ports])
"""


@contextmanager
def tunnel(cluster_file: Path, port: int, local_port: int | None = None) -> Iterator[int]:
    """Forward a local port to `port` of the head while the block runs; yield the local port.

    Raises:
        InputError: the cluster's file is invalid, or its head cannot be reached.
    """
    config = read_cluster(cluster_file)
    local_port = local_port or _free_port()
    with ExitStack() as stack:
        process = subprocess.Popen(
            _command(cluster_file, config, local_port, port),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(_end, process)
        _wait_until_open(process, local_port, cluster_file)
        yield local_port


def read_cluster(path: Path) -> dict[str, Any]:
    """Read a cluster's configuration, the file given to `ray up`.

    Raises:
        InputError: the file cannot be read or has no provider.
    """
    config = read_yaml(path)
    if not isinstance(config.get("provider"), Mapping) or "type" not in config["provider"]:
        raise InputError(
            Problem(
                message="not a cluster's configuration: provider.type is missing",
                where=str(path),
                fix="give the file for `ray up`, such as cluster.yaml",
            )
        )
    return config


def _command(path: Path, config: Mapping[str, Any], local_port: int, port: int) -> list[str]:
    """Return the command that keeps the tunnel open."""
    provider, login = config["provider"], config.get("auth") or {}
    if provider["type"] != "local" or "head_ip" not in provider:
        return [sys.executable, "-c", _OPEN, str(path), str(local_port), str(port)]
    # On-premise hosts: use ssh, because Ray's launcher needs a file in /tmp of the machine that
    # ran `ray up`.
    key = login.get("ssh_private_key")
    proxy = login.get("ssh_proxy_command")
    return [
        *("ssh", "-N", "-L", f"127.0.0.1:{local_port}:127.0.0.1:{port}"),
        *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "ExitOnForwardFailure=yes", "-o", "ConnectTimeout=20"),
        *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
        *(("-o", f"ProxyCommand={proxy}") if proxy else ()),
        *(("-i", os.path.expanduser(key)) if key else ()),
        f"{login.get('ssh_user', 'root')}@{provider.get('external_head_ip', provider['head_ip'])}",
    ]


def _wait_until_open(process: "subprocess.Popen[bytes]", port: int, cluster_file: Path) -> None:
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(POLL_S)
    output = ""
    if process.poll() is not None and process.stdout is not None:
        lines = process.stdout.read().decode(errors="replace").strip().splitlines()
        output = ": " + lines[-1].strip() if lines else ""
    raise InputError(
        Problem(
            message=f"the cluster's head cannot be reached by SSH{output}",
            where=str(cluster_file),
            fix=f"start the cluster with `ray up {shell_path(cluster_file)}`, and check that "
            f"`ray exec {shell_path(cluster_file)} hostname` works",
        )
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_broken(port: int) -> None:
    """Wait until nothing listens on the local port."""
    with suppress(OSError):
        while True:
            socket.create_connection(("127.0.0.1", port), 1).close()
            time.sleep(TUNNEL_CHECK_S)
