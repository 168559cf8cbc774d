"""One interface for every way that weights travel: channels of one sender and many receivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

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
