"""Host memory in which a receiver keeps the weights of one transfer until they are applied."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import torch

from actors.host_copy import LeaderTransfer
from actors.shared_file import PrivateMapping
from r1ray.transport.channel import Channel
from r1ray.transport.plan import Bucket, unpack


class Staged(Protocol):
    """The weights of one transfer until they are applied."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors, in host memory."""
        ...


class Stage(Staged, Protocol):
    """Where a receiver in the groups keeps one transfer. Threads use it at once, each for another stream."""

    def block(self, number: int) -> torch.Tensor:
        """Memory of a block. Raises WeightSyncError."""
        ...

    def kept(self, stream: int, number: int) -> None:
        """A bucket of a stream is in its blocks. Raises WeightSyncError."""
        ...

    def finish(self, digest: str) -> None:
        """All buckets are. Raises WeightSyncError."""
        ...

    def close(self) -> None:
        """No more buckets come, whether all did or not."""
        ...


class OwnStage(Stage):
    """For a receiver that shares with none."""

    def __init__(self, blocks: Sequence[Bucket], channel: Channel) -> None:
        self._blocks, self._channel = blocks, channel
        self._memory: dict[int, torch.Tensor] = {}
        self._lock = threading.Lock()

    def block(self, number: int) -> torch.Tensor:
        """See `Stage`."""
        with self._lock:
            if number not in self._memory:
                self._memory[number] = self._channel.memory(self._blocks[number].nbytes)
            return self._memory[number]

    def kept(self, stream: int, number: int) -> None:
        """See `Stage`."""

    def finish(self, digest: str) -> None:
        """See `Stage`."""

    def close(self) -> None:
        """See `Stage`."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Staged`."""
        found: dict[str, torch.Tensor] = {}
        for number, block in enumerate(self._blocks):
            found.update(unpack(block, self.block(number)))
        return found


class LeaderStage(Stage):
    """For the leader of a host: the file that its followers map."""

    def __init__(self, transfer: LeaderTransfer) -> None:
        self._transfer = transfer
        self._mapping: PrivateMapping | None = None  # of all blocks, at the end

    def block(self, number: int) -> torch.Tensor:
        """See `Stage`."""
        return self._transfer.file.block(number)

    def kept(self, stream: int, number: int) -> None:
        """See `Stage`."""
        self._transfer.kept(stream, number)

    def finish(self, digest: str) -> None:
        """See `Stage`."""
        self._mapping = self._transfer.finish(digest)

    def close(self) -> None:
        """See `Stage`."""
        self._transfer.close()

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Staged`."""
        assert self._mapping is not None, "asked for after `finish`"
        return self._mapping.tensors()
