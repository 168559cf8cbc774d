"""Interface of the transports of weights: channels with one sender and many receivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # workers that carry no weights import this module too
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the members of one epoch meet, and how many. Producer: rank 0. Consumers: rollout workers, other ranks."""

    transport: str  # gloo | nccl | ipc
    address: str
    port: int
    epoch: int  # number of the group; a new group is formed whenever its membership changes or it failed
    world_size: int  # rank 0 of the learner and all receivers
    timeout_s: float  # of every single operation
    senders: int = 1  # learner ranks that send, each in a group of its own with the receivers


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A member's place in the group of one sender."""

    stream: int  # the sending learner rank
    rank: int  # 0: the sender
    size: int


class Pending(Protocol):
    """A broadcast that has begun."""

    def wait(self) -> None:
        """Return when the bytes have left or arrived. Raises WeightSyncError."""
        ...


class Channel(Protocol):
    """One end of a formed group."""

    def buffer(self, nbytes: int) -> torch.Tensor:
        """Memory to send from or receive into, uint8 [nbytes]."""
        ...

    def start(self, buffer: torch.Tensor) -> Pending:
        """Begin a broadcast: rank 0 sends `buffer`, all others receive into theirs. Raises WeightSyncError.

        One at a time: wait for it before the next one begins. `buffer` must not change until then.
        """
        ...

    def broadcast(self, buffer: torch.Tensor) -> None:
        """A whole broadcast. Raises WeightSyncError."""
        self.start(buffer).wait()

    def memory(self, nbytes: int) -> torch.Tensor:
        """Host memory to keep weights in until all are received, uint8 [nbytes].

        No other tensor uses it: a loaded model may keep views of what it was loaded from.
        """
        ...

    def close(self) -> None:
        """Leave the group."""
        ...
