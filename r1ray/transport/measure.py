"""Measure a transfer between two processes through the parts that a weight sync uses: rendezvous, group, broadcast."""

from __future__ import annotations

import time

import torch

from r1ray.transport.channel import Rendezvous
from r1ray.transport.rendezvous import Listener, join, listen

WARM_UP_BYTES = 1 << 20
"""Sent first: it opens the connections, and with NCCL forms the communicator."""


class Sender:
    """The sending end of one measurement."""

    def __init__(self, transport: str, address: str, timeout_s: float) -> None:
        """Listen at `address`.

        Raises ConfigError for an unknown transport, or an address that is not of this machine.
        """
        self._listener: Listener = listen(transport, address=address, epoch=0, world_size=2, timeout_s=timeout_s)

    @property
    def rendezvous(self) -> Rendezvous:
        """Where the receiver comes."""
        return self._listener.rendezvous

    def send(self, nbytes: int, interface: str | None) -> None:
        """Wait for the receiver, then send. Raises WeightSyncError."""
        channel = self._listener.accept(interface=interface, device=_device(self.rendezvous.transport))
        for size in (WARM_UP_BYTES, nbytes):
            channel.broadcast(channel.buffer(size))
        channel.close()


def receive(rendezvous: Rendezvous, nbytes: int, *, interface: str | None, host: str | None) -> float:
    """The other end, whose own address is `host`. Returns the seconds for `nbytes`. Raises WeightSyncError."""
    member = join(rendezvous, rank=1, interface=interface, host=host, device=_device(rendezvous.transport))
    (channel,) = member.channels
    channel.broadcast(channel.buffer(WARM_UP_BYTES))
    buffer = channel.buffer(nbytes)
    began = time.monotonic()
    channel.broadcast(buffer)
    seconds = time.monotonic() - began
    channel.close()
    return seconds


def _device(transport: str) -> torch.device | None:
    """The one GPU that Ray gave to this process; gloo needs none."""
    return None if transport == "gloo" else torch.device("cuda", 0)
