"""Select the network interface for the ranks of a node.

Gloo uses the interface that the host's name resolves to, which on many systems is loopback: ranks
on two hosts then cannot connect. NCCL may choose an interface without a route to other nodes.
"""

import os
import socket

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def find_interface(address: str) -> str | None:
    """Return the name of this machine's interface with `address`; None if there is none."""
    import psutil

    for name, entries in psutil.net_if_addrs().items():
        families = (socket.AF_INET, socket.AF_INET6)
        # An IPv6 address may include its zone: fe80::1%eth0.
        if any(e.family in families and e.address.partition("%")[0] == address for e in entries):
            return str(name)
    return None


def set_interfaces() -> None:
    """Set the interface of Gloo and NCCL to that of Ray's address, unless already set."""
    import ray

    name = find_interface(ray.util.get_node_ip_address())
    if name is None:
        return
    for variable in VARIABLES:
        os.environ.setdefault(variable, name)
