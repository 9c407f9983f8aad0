"""A way from this machine to what a cluster's head serves on its loopback: an SSH tunnel."""

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

from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import read_yaml

DASHBOARD_PORT = 8265
MLFLOW_PORT = 5000
OPEN_TIMEOUT_S = 120.0
POLL_S = 0.1
TUNNEL_CHECK_S = 5.0
# Ray's own launcher knows the head's address, user and key on every provider of machines.
_OPEN = """
import sys
from ray.autoscaler.sdk import run_on_cluster
ports = (int(sys.argv[2]), int(sys.argv[3]))
run_on_cluster(sys.argv[1], cmd="cat > /dev/null", port_forward=[ports])
"""


@contextmanager
def tunnel(cluster_file: Path, port: int, local_port: int | None = None) -> Iterator[int]:
    """A port of this machine's loopback that leads to `port` of the head's, while it is open.

    Raises:
        InputError: the cluster's file is wrong, or its head cannot be reached.
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
    """The configuration of a cluster, as `ray up` takes it.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    config = read_yaml(path)
    if not isinstance(config.get("provider"), Mapping) or "type" not in config["provider"]:
        raise InputError(
            Problem(
                message="not a cluster's configuration: it has no provider.type",
                where=str(path),
                fix="give the file that `ray up` takes, such as cluster.yaml",
            )
        )
    return config


def _command(path: Path, config: Mapping[str, Any], local_port: int, port: int) -> list[str]:
    """The command that keeps a tunnel open."""
    provider, login = config["provider"], config.get("auth") or {}
    if provider["type"] != "local" or "head_ip" not in provider:
        return [sys.executable, "-c", _OPEN, str(path), str(local_port), str(port)]
    # The launcher finds hosts of one's own in a file below /tmp of the machine that ran `ray up`.
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
    said = ""
    if process.poll() is not None and process.stdout is not None:
        lines = process.stdout.read().decode(errors="replace").strip().splitlines()
        said = ": " + lines[-1].strip() if lines else ""
    raise InputError(
        Problem(
            message=f"the cluster's head cannot be reached by SSH{said}",
            where=str(cluster_file),
            fix=f"bring the cluster up with `ray up {cluster_file}`, and see whether "
            f"`ray exec {cluster_file} hostname` works",
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
    """Return when nothing listens on this port of loopback any more."""
    with suppress(OSError):
        while True:
            socket.create_connection(("127.0.0.1", port), 1).close()
            time.sleep(TUNNEL_CHECK_S)
