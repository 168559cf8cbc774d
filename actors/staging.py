"""Receive weights beside generation, and stage them in host memory.

    begin ---> thread: join the groups; per sender: bucket n on the wire, n - 1 digested and kept ---> received
    received ---> tensors ---> release

The weights are staged in blocks. If one rank sends all, its buckets are the blocks, and are received in place; what
several ranks send, each in a thread of its own, is copied to its places.

Receivers on one host, the processes of a tensor-parallel engine among them, have one staged copy (host_copy.py): the
first of them is in the groups and keeps what it receives in a file in shared memory, the others map that. Alternatives:
staging only what a shard needs takes the layout that vLLM's loaders keep to themselves; pinned memory would be faster
to load from, but is held per process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from actors.host_copy import LeaderMarks, follow
from actors.shm_cleanup import SHARED_MEMORY
from actors.stages import LeaderStage, OwnStage, Stage, Staged
from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import in_thread
from r1ray.transport.channel import Channel
from r1ray.transport.delta import DeltaReceiver
from r1ray.transport.incoming import Incoming, WholeReceiver
from r1ray.transport.plan import Bucket, Digest, TransferPlan
from r1ray.transport.rendezvous import Member
from r1ray.transport.transfer import combined

Join = Callable[[torch.device], Member]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Result of one transfer."""

    digest: str  # of the bytes on the wire; empty if not requested


class Places:
    """Where the pieces of buckets belong in the blocks."""

    def __init__(self, blocks: Sequence[Bucket], stage: Stage, channel: Channel) -> None:
        self._blocks, self._stage, self._channel = blocks, stage, channel
        self._on_host = channel.buffer(0).device.type == "cpu"
        self._at = {
            piece.spec.name: (number, sum(p.nbytes for p in block.pieces[:i]))
            for number, block in enumerate(blocks)
            for i, piece in enumerate(block.pieces)
        }

    def room(self, bucket: Bucket) -> torch.Tensor:
        """Memory to receive a bucket into: its block, if it is one and the channel fills host memory."""
        whole = self._whole(bucket)
        return self._channel.buffer(bucket.nbytes) if whole is None else self._stage.block(whole)

    def keep(self, bucket: Bucket, room: torch.Tensor) -> None:
        """Copy the bucket from its `room` to its places."""
        if self._whole(bucket) is not None:
            return
        for piece, values in zip(bucket.pieces, room.split([p.nbytes for p in bucket.pieces]), strict=True):
            number, offset = self._at[piece.spec.name]
            start = offset + piece.start * piece.item
            self._stage.block(number)[start : start + piece.nbytes].copy_(values)

    def _whole(self, bucket: Bucket) -> int | None:
        number, _ = self._at[bucket.pieces[0].spec.name]
        return number if self._on_host and self._blocks[number].pieces == bucket.pieces else None


@dataclass(slots=True)
class _Transfer:
    """Outcome of one thread, which may outlive its transfer: a later one has another."""

    staged: Staged | None = None
    received: Received | None = None
    error: BaseException | None = None


class WeightReceiver:
    """One transfer at a time, in a thread of its own, into memory of the process whose weights are on `device`."""

    def __init__(self, device: torch.device, folder: Path = SHARED_MEMORY) -> None:
        """`folder`: for the copy that receivers of this host share."""
        self._device = device
        self._folder = folder
        self._join: Join | None = None
        self._member: Member | None = None
        self._incoming: list[Incoming] = []  # by sender, of the present groups
        self._transfers = 0  # of the present group
        self._thread: threading.Thread | None = None
        self._transfer: _Transfer | None = None

    def enter(self, join: Join) -> None:
        """Leave the old group; the next transfer's thread joins the new one, because joining can block."""
        self.leave()
        self._join = join

    @property
    def has_group(self) -> bool:
        """Whether there is a group to receive from."""
        return self._join is not None or self._member is not None

    def begin(self, plan: TransferPlan, *, digest: bool, delta: bool = False) -> None:
        """Start the thread. Its outcome is that of `received`. `delta`: the senders send differences."""
        self.release()
        self._transfer = _Transfer()
        arguments = (plan, self._transfer, digest, delta)
        self._thread = threading.Thread(target=self._run, args=arguments, name="weight-receiver", daemon=True)
        self._thread.start()

    def _run(self, plan: TransferPlan, transfer: _Transfer, with_digest: bool, delta: bool) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # per thread: a new one begins on device 0
            if self._join is not None:
                self._member, self._join, self._transfers = self._join(self._device), None, 0
                self._incoming = [DeltaReceiver(c) if delta else WholeReceiver(c) for c in self._member.channels]
            member, number = self._member, self._transfers
            assert member is not None
            self._transfers += 1
            if not member.channels:
                transfer.staged, digest = follow(member, number, plan)
            else:
                stage = self._stage(member, plan, number)
                transfer.staged = stage
                digest = receive(plan, member.channels, self._incoming, stage, with_digest=with_digest)
            transfer.received = Received(digest=digest)
        except BaseException as e:  # handed to the engine's thread by `received`
            transfer.error = e

    def _stage(self, member: Member, plan: TransferPlan, number: int) -> Stage:
        if not member.followers:
            return OwnStage(plan.blocks, member.channels[0])
        return LeaderStage(plan.blocks, LeaderMarks(member, number), self._folder)

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
        if self._transfer is None or self._transfer.received is None or self._transfer.staged is None:
            raise WeightSyncError("cannot apply a weight update before all of it is received")
        return self._transfer.staged.tensors()

    def release(self) -> None:
        """Free the received weights; tensors that are still used stay valid."""
        self._transfer = None

    def leave(self) -> None:
        """Leave the group."""
        for channel in () if self._member is None else self._member.channels:
            channel.close()
        self._member, self._join, self._incoming = None, None, []


def receive(
    plan: TransferPlan, channels: Sequence[Channel], incoming: Sequence[Incoming], stage: Stage, *, with_digest: bool
) -> str:
    """Receive all streams into `stage`; returns their digest, empty unless requested. Raises WeightSyncError.

    The first failure of a stream is raised at once. The threads of the others end with their groups, which the control
    loop aborts.
    """
    places = [Places(plan.blocks, stage, channel) for channel in channels]
    streams = [
        partial(receive_stream, stream, buckets, incoming[stream], places[stream], stage, with_digest=with_digest)
        for stream, buckets in enumerate(plan.streams)
    ]
    try:
        if len(streams) == 1:
            digests = [streams[0]()]
        else:
            calls = [in_thread(stream) for stream in streams]
            failed = [call for call in wait(calls, return_when=FIRST_EXCEPTION).done if call.exception() is not None]
            digests = [call.result() for call in failed or calls]
        digest = combined(digests)
        stage.finish(digest)
        return digest
    finally:
        stage.close()


def receive_stream(
    stream: int, buckets: Sequence[Bucket], incoming: Incoming, places: Places, stage: Stage, *, with_digest: bool
) -> str:
    """Receive what one rank sends; returns its digest."""
    digest, rooms = Digest(), (places.room(bucket) for bucket in buckets)
    room = next(rooms, None)
    if room is not None:
        incoming.begin(0, buckets[0].item, room)
    for number, bucket in enumerate(buckets):
        assert room is not None
        following = next(rooms, None)  # made beside the present broadcast
        rest = incoming.arrive()
        if following is not None:
            incoming.begin(number + 1, buckets[number + 1].item, following)
        rest()
        if with_digest:
            digest.update(room)
        places.keep(bucket, room)
        stage.kept(stream, number)
        room = following
    return digest.hexdigest() if with_digest else ""
