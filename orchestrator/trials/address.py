"""Whether a Ray cluster answers at an address, found out without Ray, which would wait minutes."""

import socket

from trainers.foundation.errors import InputError, Problem

CONNECT_TIMEOUT_S = 5.0


def check_address(address: str) -> None:
    """Raise InputError where nothing listens at `address`, given as --address takes it."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise no_cluster(address, str(error)) from error


def no_cluster(address: str, reason: str) -> InputError:
    """The error of a cluster that is not there or refuses us."""
    return InputError(
        Problem(
            message=f"no Ray cluster can be used at {address}: {reason}",
            where="--address or RAY_ADDRESS",
            fix="give host:port of a running head, auto on a node of the cluster, or leave it out "
            "to run on this machine",
        )
    )
