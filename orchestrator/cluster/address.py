"""Find the dashboard of a Ray cluster from any address that RAY_ADDRESS may hold."""

import http.client
import socket
from contextlib import closing
from urllib.parse import urlsplit

from orchestrator.trials.ray_address import check_address

PROBE_TIMEOUT_S = 5.0


def dashboard_url(address: str) -> str:
    """Return the URL of the dashboard, which serves Ray's job API.

    Args:
        address: the dashboard (`http://HOST:8265`, also without the scheme), the cluster's control
            store (`HOST:6379`, or `auto` on one of its nodes), or its client server
            (`ray://HOST:10001`).

    Raises:
        InputError: nothing listens at the address.
        ConnectionError, RuntimeError, ValueError: no cluster answers there.
    """
    if address.startswith(("http://", "https://")):
        return address
    scheme, separator, _ = address.partition("://")
    if not address or (separator and scheme != "ray"):
        raise ValueError(
            "it must be auto, HOST:PORT, ray://HOST:PORT or begin with http:// or https://"
        )
    check_address(address)
    if not separator and address != "auto" and _serves_http(address):
        return f"http://{address}"
    # Imports Ray.
    from ray.dashboard.utils import get_address_for_submission_client

    return usable_url(str(get_address_for_submission_client(address)), address)


def usable_url(url: str, address: str) -> str:
    """Return the URL that the cluster at `address` reports for its dashboard.

    Raises:
        ValueError: the dashboard listens on the loopback interface of another machine. The same URL
            could be another cluster here.
    """
    host = address.removeprefix("ray://").rpartition(":")[0]
    is_loopback = (urlsplit(url).hostname or "").startswith(("127.", "localhost"))
    if is_loopback and address != "auto" and not _is_this_machine(host):
        raise ValueError(
            "its dashboard listens only on the head itself: use --cluster, or a tunnel "
            "(ssh -L 8265:127.0.0.1:8265 HEAD) and http://127.0.0.1:8265"
        )
    return url


def _is_this_machine(host: str) -> bool:
    """Return whether `host` is an address of this machine: only those can be bound."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(target)
    except OSError:
        return False
    return True


def _serves_http(host_and_port: str) -> bool:
    """Return whether a server answers HTTP; the control store speaks gRPC, which is not HTTP/1."""
    with closing(http.client.HTTPConnection(host_and_port, timeout=PROBE_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/api/version")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
    return True
