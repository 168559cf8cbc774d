"""Receive weights beside generation: a thread takes bucket after bucket and stages it in host memory.

    begin ---> thread: join the group, broadcast each bucket, digest, keep ---> received ---> tensors ---> release

Each process of an engine receives every bucket (NCCL delivers it to each GPU anyway), but only the first one on its host
keeps it, in a file in shared memory that the others there map when the weights are applied: a host holds one staged copy
of the model, not one per GPU. Alternatives: staging only what a shard needs takes the layout that vLLM's loaders keep to
themselves; pinned memory would be faster to load from, but is held per process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Channel
from r1ray.transport.delta import DeltaReceiver
from r1ray.transport.plan import Bucket, Digest, unpack

_ALIGNED = 64
"""Offsets of buckets in a file are multiples of this, so that tensors of any dtype can be viewed in place."""

Join = Callable[[torch.device], Channel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Result of one receiving thread."""

    digest: str  # of the bytes on the wire; empty if not requested


class StagedWeights(Protocol):
    """Where the buckets of one transfer are kept until they are applied."""

    def open(self) -> None:
        """Make room. Raises WeightSyncError."""
        ...

    def keep(self, number: int, buffer: torch.Tensor, channel: Channel) -> None:
        """Keep the bucket `number`."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors, in host memory."""
        ...

    def discard(self) -> None:
        """Give the memory back; tensors that are still used stay valid."""
        ...


class OwnStage:
    """For an engine of one process: the channel's own copy of each bucket."""

    def __init__(self, plan: Sequence[Bucket]) -> None:
        self._plan = plan
        self._tensors: dict[str, torch.Tensor] = {}

    def open(self) -> None:
        """Nothing to do."""

    def keep(self, number: int, buffer: torch.Tensor, channel: Channel) -> None:
        """See `StagedWeights`."""
        self._tensors.update(unpack(self._plan[number], channel.stage(buffer)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `StagedWeights`."""
        return self._tensors

    def discard(self) -> None:
        """See `StagedWeights`."""
        self._tensors = {}


class SharedStage:
    """For an engine of several processes on one host: a file in shared memory that the `writer` fills and all map."""

    def __init__(self, plan: Sequence[Bucket], path: Path, *, writer: bool) -> None:
        self._plan = plan
        self._path = path
        self._writer = writer
        self._offsets = [0]
        for bucket in plan:
            self._offsets.append(self._offsets[-1] + -(-bucket.nbytes // _ALIGNED) * _ALIGNED)
        self._memory: torch.Tensor | None = None
        self._discarded = False

    def open(self) -> None:
        """Reserve the whole file: a write beyond what shared memory has left would kill the process (SIGBUS)."""
        if self._discarded:
            raise WeightSyncError("the transfer ended before it began to receive")
        if not self._writer:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._nbytes)
            finally:
                os.close(fd)
        except OSError as e:
            self.discard()
            raise WeightSyncError(
                f"cannot stage {self._nbytes / 2**30:.2f} GiB of weights in {self._path}: {e.strerror}; a larger shared "
                "memory (/dev/shm), or rollout.engine.tensor_parallel_size=1"
            ) from e
        self._memory = self._mapped()

    def keep(self, number: int, buffer: torch.Tensor, channel: Channel) -> None:
        """See `StagedWeights`; a process that is not the writer keeps nothing."""
        if self._memory is not None:
            start = self._offsets[number]
            self._memory[start : start + buffer.numel()].copy_(buffer)

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `StagedWeights`. The writer has received everything: the engine applies only once all its processes have."""
        if self._memory is None:
            self._memory = self._mapped()
        staged: dict[str, torch.Tensor] = {}
        for bucket, start in zip(self._plan, self._offsets[:-1], strict=True):
            staged.update(unpack(bucket, self._memory[start : start + bucket.nbytes]))
        return staged

    def discard(self) -> None:
        """See `StagedWeights`."""
        self._memory, self._discarded = None, True
        if self._writer:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    @property
    def _nbytes(self) -> int:
        return max(1, self._offsets[-1])

    def _mapped(self) -> torch.Tensor:
        return torch.from_file(str(self._path), shared=True, size=self._nbytes, dtype=torch.uint8)


@dataclass(slots=True)
class _Transfer:
    """Outcome of one thread, which may outlive its transfer: a later one has another."""

    stage: StagedWeights
    received: Received | None = None
    error: BaseException | None = None


class WeightReceiver:
    """One transfer at a time, in a thread of its own, into memory of the process whose weights are on `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._join: Join | None = None
        self._channel: Channel | None = None
        self._differences: DeltaReceiver | None = None  # of the present group; with sync.encoding=delta
        self._thread: threading.Thread | None = None
        self._transfer: _Transfer | None = None

    def enter(self, join: Join) -> None:
        """Leave the old group; the next transfer's thread joins the new one, because joining can block."""
        self.leave()
        self._join = join

    @property
    def has_group(self) -> bool:
        """Whether there is a group to receive from."""
        return self._join is not None or self._channel is not None

    def begin(self, plan: Sequence[Bucket], stage: StagedWeights, *, digest: bool, delta: bool = False) -> None:
        """Start the thread. Its outcome is that of `received`. `delta`: the sender sends differences."""
        self.release()
        self._transfer = _Transfer(stage)
        arguments = (plan, self._transfer, digest, delta)
        self._thread = threading.Thread(target=self._run, args=arguments, name="weight-receiver", daemon=True)
        self._thread.start()

    def _run(self, plan: Sequence[Bucket], transfer: _Transfer, with_digest: bool, delta: bool) -> None:
        stage = transfer.stage
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # per thread: a new one begins on device 0
            if self._join is not None:
                self._channel, self._join = self._join(self._device), None
                self._differences = DeltaReceiver(self._channel) if delta else None
            assert self._channel is not None
            stage.open()
            digest = Digest()
            for number, bucket in enumerate(plan):
                if self._differences is None:
                    buffer = self._channel.buffer(bucket.nbytes)
                    self._channel.broadcast(buffer)
                else:
                    buffer = self._differences.receive(number, bucket.nbytes, bucket.item)
                if with_digest:
                    digest.update(buffer)
                stage.keep(number, buffer, self._channel)
            transfer.received = Received(digest=digest.hexdigest() if with_digest else "")
        except BaseException as e:  # handed to the engine's thread by `received`
            transfer.error = e

    def received(self) -> Received | None:
        """None while buckets are arriving; raises the error that ended the thread."""
        if self._thread is not None and self._thread.is_alive():
            return None
        if self._transfer is None:
            return None
        if self._transfer.error is not None:
            raise self._transfer.error
        return self._transfer.received

    def tensors(self) -> dict[str, torch.Tensor]:
        """The received weights. Raises WeightSyncError before all are received."""
        if self._transfer is None or self._transfer.received is None:
            raise WeightSyncError("cannot apply a weight update before all of it is received")
        return self._transfer.stage.tensors()

    def release(self) -> None:
        """Free the received weights."""
        if self._transfer is not None:
            self._transfer.stage.discard()
        self._transfer = None

    def leave(self) -> None:
        """Leave the group."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._join = self._differences = None
