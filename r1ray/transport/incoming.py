"""Buckets as they come in over a channel: while one is on the wire, the receiver works on the one before it.

begin(n)   the broadcast starts
arrive()   the bytes are here, and `begin(n + 1)` may follow; returns what is left to do
the rest   makes the bucket of its bytes, beside the next one's broadcast
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from r1ray.transport.channel import Channel, Pending


class Incoming(Protocol):
    """One bucket at a time is between `begin` and `arrive`."""

    def begin(self, number: int, item: int, room: Tensor) -> None:
        """Begin to receive the bucket of this number, whose words have `item` bytes, into `room`."""
        ...

    def arrive(self) -> Callable[[], object]:
        """Wait for its bytes. `room` holds the bucket once the result has been called. Raises WeightSyncError."""
        ...


class WholeReceiver(Incoming):
    """Buckets as they are."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pending: Pending | None = None

    def begin(self, number: int, item: int, room: Tensor) -> None:
        """See `Incoming`."""
        self._pending = self._channel.start(room)

    def arrive(self) -> Callable[[], object]:
        """See `Incoming`."""
        assert self._pending is not None, "`begin` comes first"
        self._pending.wait()
        return _nothing


def _nothing() -> None:
    """A bucket is complete when its bytes are there."""
