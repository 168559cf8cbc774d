"""Senders of a weight transfer: gather, pack into buckets, send. Does not import vLLM, which takes 11 s.

Large tensors in host memory are sent from where they are: a copy costs a third of what a broadcast on one host takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain, cycle

import torch

from r1ray.config.schema import SyncConfig
from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Channel, Pending, Rendezvous
from r1ray.transport.delta import DeltaSender
from r1ray.transport.digest import Digest
from r1ray.transport.plan import ALONE, Bucket, Piece, pack_into
from r1ray.transport.rendezvous import Listener, listen, offer
from r1ray.transport.transfer import Sent


class Wire:
    """One message at a time is on the wire, beside which the caller prepares the next."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._pending: Pending | None = None
        self._bytes = 0

    def send(self, message: torch.Tensor) -> None:
        """Send when the message before it has left. Raises WeightSyncError."""
        if self._pending is not None:
            self._pending.wait()
        self._pending = self.channel.start(message)
        self._bytes += message.numel()

    def finish(self) -> int:
        """Wait for the latest one; returns the bytes of all so far. Raises WeightSyncError."""
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
        return self._bytes


class WeightPublisher:
    """Sends what this rank is to send, if anything.

    The other ranks only iterate: gathering a tensor needs all ranks.
    """

    def __init__(
        self,
        config: SyncConfig,
        *,
        transport: str,
        plan: list[Bucket],
        host: str,
        rank: int = 0,
        senders: int = 1,
        device: torch.device | None = None,
    ) -> None:
        """`plan`: of this rank's buckets. Ranks below `senders` send. `host`: where others reach this process.
        `device`: of the weights; gloo needs none."""
        self._config = config
        self._transport = transport
        self._plan = plan
        self._rank = rank
        self._senders = senders
        self._host = host
        self._device = device
        self._listener: Listener | None = None  # rank 0, before the group has formed
        self._channel: Channel | None = None
        self._differences: DeltaSender | None = None  # of the present group; with sync.encoding=delta
        self._packing: list[torch.Tensor] | None = None  # memory to pack into, of the present group

    def open_epoch(self, epoch: int, receivers: int) -> Rendezvous:
        """Leave the old group and open the rendezvous of a new one; members join while `send` waits for them.

        Rank 0.
        """
        self._leave()
        self._listener = listen(
            self._transport,
            address=self._host,
            epoch=epoch,
            world_size=receivers + 1,
            timeout_s=self._config.bucket_deadline_s,
            senders=self._senders,
        )
        return self._listener.rendezvous

    def send(self, weights: Iterable[tuple[str, int, torch.Tensor]], group: Rendezvous | None = None) -> Sent:
        """Send all pieces of the plan, which `weights` has in its order: name, first value, values.

        `group`: a new one, whose rendezvous rank 0 has opened. Raises WeightSyncError; the group is closed then.
        """
        began = time.monotonic()
        stream = iter(weights)
        if self._rank >= self._senders:
            for _ in stream:
                pass
            return Sent(digest="", seconds=time.monotonic() - began, wire_bytes=0)
        failure: WeightSyncError | None = None
        digest, wire_bytes = Digest(), 0
        try:
            wire = Wire(self._enter(group))
            self._send(wire, digest, stream)
            wire_bytes = wire.finish()
        except WeightSyncError as e:
            failure = e
            self._leave()
        for _ in stream:  # the other ranks are in the same collectives until the end
            pass
        if failure is not None:
            raise failure
        return Sent(
            digest="" if self._config.digest == "none" else digest.hexdigest(),
            seconds=time.monotonic() - began,
            wire_bytes=wire_bytes,
        )

    def _send(self, wire: Wire, digest: Digest, stream: Iterator[tuple[str, int, torch.Tensor]]) -> None:
        """One weight at a time: a gathered one is valid until the next is requested."""
        rooms = self._rooms(wire.channel)
        for number, bucket in enumerate(self._plan):
            first = self._next(stream, bucket.pieces[0])
            in_place = self._differences is None and len(bucket.pieces) == 1 and _sendable(first, wire.channel)
            if in_place:
                buffer = first.detach().view(-1).view(torch.uint8)
            else:
                others = (self._next(stream, piece) for piece in bucket.pieces[1:])
                buffer = next(rooms)[: bucket.nbytes]
                pack_into(buffer, chain([first], others))
            for message in self._messages(number, buffer, bucket.item):
                wire.send(message)
            if self._config.digest != "none":
                digest.update(buffer)  # beside the broadcast
            if in_place:
                wire.finish()

    def _rooms(self, channel: Channel) -> Iterator[torch.Tensor]:
        """Memory to pack one bucket after the other into: two by turns, since one is on the wire. Differences keep
        every bucket."""
        if self._differences is not None:
            return (channel.buffer(bucket.nbytes) for bucket in self._plan)
        if self._packing is None:
            largest = max((bucket.nbytes for bucket in self._plan), default=0)
            self._packing = [channel.buffer(largest) for _ in self._plan[:2]]
        return cycle(self._packing)

    def _messages(self, number: int, buffer: torch.Tensor, item: int) -> list[torch.Tensor]:
        return [buffer] if self._differences is None else self._differences.messages(number, buffer, item)

    def _enter(self, group: Rendezvous | None) -> Channel:
        """The channel to the receivers, of a new group if there is one."""
        if self._rank and group is not None:
            self._leave()
            interface = self._config.interface
            self._channel = offer(group, sender=self._rank, interface=interface, host=self._host)
        elif self._listener is not None and self._channel is None:
            self._channel = self._listener.accept(interface=self._config.interface, device=self._device)
        if self._channel is None:
            raise WeightSyncError("weights were to be published before a weight-sync group was opened")
        if self._config.encoding == "delta" and self._differences is None:
            self._differences = DeltaSender()
        return self._channel

    def _next(self, stream: Iterator[tuple[str, int, torch.Tensor]], piece: Piece) -> torch.Tensor:
        name, start, values = next(stream)
        if (name, start, values.numel()) != (piece.spec.name, piece.start, piece.count):
            raise RuntimeError(f"weights came out of order: {name} [{start}:], {values.numel()} where {piece} was due")
        return values

    def _leave(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._listener = self._differences = self._packing = None


def _sendable(values: torch.Tensor, channel: Channel) -> bool:
    """Whether a channel can send them from where they are: large ones in host memory, by one that sends from there."""
    on_host: bool = values.device.type == channel.buffer(0).device.type == "cpu"
    return on_host and values.nbytes >= ALONE and values.is_contiguous()
