"""Sender of a weight transfer: gather, pack into buckets, send. Does not import vLLM, which takes 11 s."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from r1ray.config.schema import SyncConfig
from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Channel, Rendezvous
from r1ray.transport.delta import DeltaSender
from r1ray.transport.plan import Digest, TensorSpec, bucket_plan, pack_into
from r1ray.transport.rendezvous import Listener, listen
from r1ray.transport.transfer import Sent


class WeightPublisher:
    """Rank 0 sends. The other ranks only iterate over `weights`, since gathering a sharded tensor needs all ranks."""

    def __init__(
        self,
        config: SyncConfig,
        *,
        transport: str,
        specs: list[TensorSpec],
        is_sender: bool,
        device: torch.device | None = None,
    ) -> None:
        """`device`: of the weights; gloo needs none."""
        self._device = device
        self._config = config
        self._transport = transport
        self._plan = bucket_plan(specs, config.bucket_bytes)
        self._is_sender = is_sender
        self._listener: Listener | None = None
        self._channel: Channel | None = None
        self._differences: DeltaSender | None = None  # of the present group; with sync.encoding=delta

    def open_epoch(self, epoch: int, receivers: int, address: str) -> Rendezvous:
        """Leave the old group and open the rendezvous of a new one; receivers join while `send` waits for them."""
        self._leave()
        self._listener = listen(
            self._transport,
            address=address,
            epoch=epoch,
            world_size=receivers + 1,
            timeout_s=self._config.bucket_deadline_s,
        )
        return self._listener.rendezvous

    def send(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Sent:
        """Send all weights in the order of the specs. Raises WeightSyncError; the group is closed then."""
        began = time.monotonic()
        stream = iter(weights)
        if not self._is_sender:
            for _ in stream:
                pass
            return Sent(digest="", seconds=time.monotonic() - began, wire_bytes=0)
        failure: WeightSyncError | None = None
        digest, wire_bytes = Digest(), 0
        try:
            if self._channel is None:
                self._channel = self._accept()
            for number, bucket in enumerate(self._plan):
                buffer = self._channel.buffer(bucket.nbytes)
                # One at a time: a gathered weight is valid until the next is requested.
                pack_into(buffer, (self._next(stream, spec) for spec in bucket.specs))
                if self._config.digest != "none":
                    digest.update(buffer)
                if self._differences is None:
                    self._channel.broadcast(buffer)
                    wire_bytes += bucket.nbytes
                else:
                    wire_bytes += self._differences.send(number, buffer, bucket.item)
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

    def _accept(self) -> Channel:
        if self._listener is None:
            raise WeightSyncError("weights were to be published before a weight-sync group was opened")
        channel = self._listener.accept(interface=self._config.interface, device=self._device)
        self._differences = DeltaSender(channel) if self._config.encoding == "delta" else None
        return channel

    def _next(self, stream: Iterable[tuple[str, torch.Tensor]], spec: TensorSpec) -> torch.Tensor:
        name, tensor = next(iter(stream))
        if name != spec.name or tuple(tensor.shape) != spec.shape:
            raise RuntimeError(f"weights came out of order: {name} {tuple(tensor.shape)} where {spec} was due")
        return tensor

    def _leave(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._channel = self._listener = self._differences = None
