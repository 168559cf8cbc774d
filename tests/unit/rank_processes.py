"""Ranks that are forked processes and talk through sockets: those that survive the death of one lose it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # records are written by processes without torch
    from torch import Tensor

    from learner.group import Ranks

LOST = 17
"""Exit code of a rank that has lost the others."""


class SocketRanks:
    """One of several ranks that are processes: rank 0 has a socket to each other rank, and they one to it."""

    def __init__(self, rank: int, size: int, peers: Sequence[socket.socket]) -> None:
        self.rank, self.size = rank, size
        self._peers = [(peer, peer.makefile("rb")) for peer in peers]

    def gather(self, value: Any) -> list[Any]:
        if self.rank:
            self._send(0, value)
            found: list[Any] = self._receive(0)
            return found
        values = [value, *(self._receive(peer) for peer in range(self.size - 1))]
        for peer in range(self.size - 1):
            self._send(peer, values)
        return values

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]

    def share(self, values: Tensor, source: int) -> Tensor:
        import torch

        return torch.tensor(self.gather(values.tolist())[source], dtype=values.dtype)

    def _send(self, peer: int, value: Any) -> None:
        self._peers[peer][0].sendall(json.dumps(value).encode() + b"\n")

    def _receive(self, peer: int) -> Any:
        if not (line := self._peers[peer][1].readline()):
            raise ConnectionResetError("another rank died")
        return json.loads(line)


def linked(size: int) -> list[list[socket.socket]]:
    """The sockets of each of `size` ranks."""
    pairs = [socket.socketpair() for _ in range(size - 1)]
    return [[ours for ours, _ in pairs], *([theirs] for _, theirs in pairs)]


def in_children(size: int, work: Callable[[Ranks, Callable[[int], object]], None]) -> list[tuple[int, int]]:
    """For each of several ranks: the signal that killed it (0: it came to the end, or lost the others), and the last
    number that it said."""
    links, reading = linked(size), []
    children = []
    for rank in range(size):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            for sockets in (sockets for other, sockets in enumerate(links) if other != rank):
                for each in sockets:
                    each.close()
            _live_as(SocketRanks(rank, size, links[rank]), theirs, work)
        os.close(theirs)
        reading.append(ours)
        children.append(child)
    for sockets in links:
        for each in sockets:
            each.close()
    found = []
    for child, ours in zip(children, reading, strict=True):
        with os.fdopen(ours, "rb") as said:
            acknowledged = said.read()
        found.append((os.waitpid(child, 0)[1], max(acknowledged, default=0)))
    killed = any(os.WIFSIGNALED(status) for status, _ in found)
    for status, _ in found:
        ended = os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in ((0, LOST) if killed else (0,))
        assert ended, f"a child failed with {status}"
    return [(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, said) for status, said in found]


def _live_as(ranks: SocketRanks, told: int, work: Callable[[Ranks, Callable[[int], object]], None]) -> None:
    try:
        work(ranks, lambda n: os.write(told, bytes([n])))
    except (ConnectionError, BrokenPipeError):
        os._exit(LOST)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(1)
    os._exit(0)
