"""Which network interface the ranks of a node talk through.

Gloo takes the one that the host's own name resolves to, which on many systems is loopback: ranks
on two hosts then do not find each other. NCCL may take one that leads nowhere.
"""

import os
import socket

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def interface_of(address: str) -> str | None:
    """The name of the interface of this machine that has `address`; None if none has."""
    import psutil

    for name, entries in psutil.net_if_addrs().items():
        families = (socket.AF_INET, socket.AF_INET6)
        # An IPv6 address may carry its zone: fe80::1%eth0.
        if any(e.family in families and e.address.partition("%")[0] == address for e in entries):
            return str(name)
    return None


def set_interfaces() -> None:
    """Point Gloo and NCCL at the interface by which Ray knows this node, unless they are told."""
    import ray

    name = interface_of(ray.util.get_node_ip_address())
    if name is None:
        return
    for variable in VARIABLES:
        os.environ.setdefault(variable, name)
