"""One interface for every way that weights travel: a listener at the learner, channels of one sender and many receivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from r1ray.errors import ConfigError

if TYPE_CHECKING:  # workers that carry no weights import this module too
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where and as what the group of one epoch meets. Producer: the learner. Consumers: rollout workers."""

    transport: str  # gloo | nccl | ipc
    address: str
    port: int
    epoch: int  # a group is formed anew, under a new number, whenever its membership changes or it failed
    world_size: int  # the sender and all receivers
    timeout_s: float  # of every single operation


class Channel(Protocol):
    """One end of a formed group."""

    def buffer(self, nbytes: int) -> torch.Tensor:
        """Memory to send from or receive into, uint8 [nbytes]."""
        ...

    def broadcast(self, buffer: torch.Tensor) -> None:
        """Rank 0 sends `buffer`, all others receive into theirs. Raises WeightSyncError."""
        ...

    def stage(self, buffer: torch.Tensor) -> torch.Tensor:
        """Host memory with the content of `buffer`, to keep until all was received; gloo's buffers are that already."""
        ...

    def close(self) -> None: ...


class Listener(Protocol):
    """The sender's end before its receivers have joined."""

    rendezvous: Rendezvous

    def accept(self, *, interface: str | None = None) -> Channel: ...


def listen(transport: str, *, address: str, epoch: int, world_size: int, timeout_s: float) -> Listener:
    """Open the rendezvous of one epoch at the learner; returns at once."""
    if transport == "gloo":
        from r1ray.transport.gloo import GlooListener

        return GlooListener(address=address, epoch=epoch, world_size=world_size, timeout_s=timeout_s)
    if transport in ("nccl", "ipc"):
        from r1ray.transport.cuda import CudaListener

        return CudaListener(transport, address=address, epoch=epoch, world_size=world_size, timeout_s=timeout_s)
    raise ConfigError(f"sync.transport is {transport!r}; known are gloo, nccl and ipc")


def join(rendezvous: Rendezvous, *, rank: int, interface: str | None = None, host: str | None = None) -> Channel:
    """Join the group as receiver `rank` (from 1). Blocks until it has formed. Raises WeightSyncError."""
    if rendezvous.transport == "gloo":
        from r1ray.transport.gloo import GlooChannel

        return GlooChannel.join(rendezvous, rank=rank, interface=interface, host=host)
    from r1ray.transport.cuda import CudaChannel

    return CudaChannel.join(rendezvous, rank=rank)
