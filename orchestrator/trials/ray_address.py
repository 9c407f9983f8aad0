"""Check that a Ray cluster answers at an address, and shorten Ray's temporary folder.

The checks do not use Ray, which would wait for minutes.
"""

import os
import socket
import tempfile

from trainers.foundation.errors import InputError, Problem

CONNECT_TIMEOUT_S = 5.0
# A Unix socket's path has at most 107 bytes, of which Ray's session folder takes 66.
MAX_TEMP_DIR_BYTES = 41
_SHORT_TEMP_DIRS = ("/tmp", "/var/tmp")


def check_address(address: str) -> None:
    """Check that something listens at `address`, given in the form that --address accepts.

    Raises:
        InputError: nothing listens there.
    """
    if address == "auto":
        return
    if address.startswith(("http://", "https://")):
        raise InputError(
            Problem(
                message=f"{address} is the dashboard of a cluster, at which jobs are submitted",
                where="--address or RAY_ADDRESS",
                fix="run plw submit with it, or give HOST:6379, or auto on a node of the cluster",
            )
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise no_cluster(address, str(error)) from error


def no_cluster(address: str, reason: str) -> InputError:
    """Return the error for a cluster that does not answer or refuses the connection."""
    return InputError(
        Problem(
            message=f"no Ray cluster can be used at {address}: {reason}",
            where="--address or RAY_ADDRESS",
            fix="give host:port of a running head, or auto on a node of the cluster; without an "
            "address the sweep runs on this machine",
        )
    )


def short_temp_dir() -> str | None:
    """Return a temporary folder that Ray can start in; None if the current path is short enough.

    Batch systems set TMPDIR to paths in which Ray's sockets exceed the limit of the system.

    Raises:
        InputError: the path is too long, and no shorter folder is writable.
    """
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(folder)) <= MAX_TEMP_DIR_BYTES:
        return None
    for short in _SHORT_TEMP_DIRS:
        if os.access(short, os.W_OK | os.X_OK):
            return short
    raise InputError(
        Problem(
            message=f"the temporary folder {folder} is too long for Ray's sockets: at most"
            f" {MAX_TEMP_DIR_BYTES} bytes",
            where="TMPDIR",
            fix="set TMPDIR to a shorter path",
        )
    )


def shorten_temp_dir() -> None:
    """Set TMPDIR of this process and its child processes to `short_temp_dir`.

    Setting Ray's own folder is not enough: Python's multiprocessing puts the sockets of Ray's
    dashboard in TMPDIR.
    """
    short = short_temp_dir()
    if short is not None:
        os.environ["TMPDIR"] = short
        os.environ.pop("RAY_TMPDIR", None)
        tempfile.tempdir = None
