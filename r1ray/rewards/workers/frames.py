"""Protocol between the pool and its workers: length-prefixed msgpack over a stream socket. Never pickle.

A frame is four bytes of length, big-endian, and as many bytes of msgpack.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgpack

_LENGTH = struct.Struct(">I")


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send a message. Lone surrogates in text survive. Raises OSError if the other end is gone."""
    body = msgpack.packb(message, use_bin_type=True, unicode_errors="surrogatepass")
    sock.sendall(_LENGTH.pack(len(body)) + body)


def receive(sock: socket.socket) -> dict[str, Any]:
    """Receive the next message. Raises EOFError if the other end is gone, and TimeoutError after
    the socket's timeout.
    """
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    message = msgpack.unpackb(_exactly(sock, length), raw=False, unicode_errors="surrogatepass")
    assert isinstance(message, dict)
    return message


def _exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if got == 0:
            raise EOFError("the other end closed the connection")
        view = view[got:]
    return data
