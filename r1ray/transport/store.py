"""Key-value stores of torch in which processes meet; the server listens on one address only.

torch's own server listens on all addresses of its host, without authentication.
"""

from __future__ import annotations

import socket
from datetime import timedelta

from torch.distributed import TCPStore

from r1ray.errors import ConfigError


def listen_at(address: str, port: int = 0) -> socket.socket:
    """A socket that listens at `address` and nowhere else; port 0: a free one. Raises ConfigError."""
    try:
        family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(where, family=family)
    except OSError as e:
        raise ConfigError(
            f"cannot listen at {address}, port {port or 'any'}: {e}; expected an address of this machine. Ray uses it "
            "for "
            "the node: start Ray with another --node-ip-address"
        ) from e


def serve(listening: socket.socket, *, address: str, timeout_s: float, world_size: int | None = None) -> TCPStore:
    """A store that serves at `listening`, which it takes over; waits for `world_size` processes if that is given.

    Raises RuntimeError if they do not come within `timeout_s`.
    """
    port = listening.getsockname()[1]
    return TCPStore(
        address,
        port,
        world_size,
        is_master=True,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=world_size is not None,
        master_listen_fd=listening.detach(),
    )


def reach(address: str, port: int, *, timeout_s: float, world_size: int | None = None) -> TCPStore:
    """A client of the store at `address:port`, one of the `world_size` processes for which that waits.

    Raises RuntimeError if the store does not answer within `timeout_s`.
    """
    return TCPStore(
        address,
        port,
        world_size,
        is_master=False,
        timeout=timedelta(seconds=timeout_s),
        wait_for_workers=world_size is not None,
    )
