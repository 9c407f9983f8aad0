"""Find the dashboard of a Ray cluster from any address that RAY_ADDRESS may hold."""

import http.client
from contextlib import closing

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

    return str(get_address_for_submission_client(address))


def _serves_http(host_and_port: str) -> bool:
    """Return whether a server answers HTTP; the control store speaks gRPC, which is not HTTP/1."""
    with closing(http.client.HTTPConnection(host_and_port, timeout=PROBE_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/api/version")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
    return True
