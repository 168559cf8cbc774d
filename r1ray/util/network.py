"""Addresses and network interfaces of this machine."""

from __future__ import annotations

import socket

from r1ray.errors import ConfigError

LOOPBACK = "127.0.0.1"


def interface_of(address: str) -> str:
    """Name of the network interface that has the IP address `address`. Raises ConfigError if none has it."""
    import psutil

    known = set()
    for name, addresses in psutil.net_if_addrs().items():
        here = {a.address.partition("%")[0] for a in addresses if a.family in (socket.AF_INET, socket.AF_INET6)}
        if address in here:
            return str(name)
        known |= here
    raise ConfigError(
        f"no network interface of this machine has the address {address}, which Ray uses for the node; it has "
        f"{', '.join(sorted(known))}: start Ray with one of them as --node-ip-address"
    )
