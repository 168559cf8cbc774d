"""The TCP sockets at which processes listen."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int, str]]:
    """(address, port, process) of each socket at which these processes listen. One that ends meanwhile is left out.

    An IPv4 address of an IPv6 socket is written as IPv4.
    """
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            called = " ".join(process.cmdline())[:100]
            seen = [c for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
            found |= {(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port, called) for c in seen}
    return found
