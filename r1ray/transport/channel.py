"""Interface of the transports of weights: channels with one sender and many receivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # workers that carry no weights import this module too
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the group of one epoch meets, and its size. Producer: the learner. Consumers: rollout workers."""

    transport: str  # gloo | nccl | ipc
    address: str
    port: int
    epoch: int  # number of the group; a new group is formed whenever its membership changes or it failed
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
        """Host memory with the content of `buffer`, to keep until all buckets are received."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...
