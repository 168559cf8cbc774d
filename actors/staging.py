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

from actors.host_copy import FollowerCopy, LeaderCopy
from actors.shm_cleanup import SHARED_MEMORY
from actors.stages import LeaderStage, OwnStage, Stage, Staged
from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import in_thread
from r1ray.transport.channel import Channel
from r1ray.transport.delta import DeltaReceiver
from r1ray.transport.digest import Digest
from r1ray.transport.incoming import Incoming, WholeReceiver
from r1ray.transport.plan import Bucket, TransferPlan
from r1ray.transport.rendezvous import Member
from r1ray.transport.transfer import combined

Join = Callable[[torch.device], Member]
LEFT = "the weight-sync group was left while a transfer began"


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


class _Group:
    """The present group, and what its transfers share."""

    def __init__(self, member: Member, folder: Path, *, delta: bool) -> None:
        self.member = member
        self.incoming: list[Incoming] = [  # by sender
            DeltaReceiver(channel) if delta else WholeReceiver(channel) for channel in member.channels
        ]
        self.copy: LeaderCopy | FollowerCopy | None = None  # if this host has other receivers
        if not member.channels:
            self.copy = FollowerCopy(member)
        elif member.followers:
            self.copy = LeaderCopy(member, folder)
        self.transfers = 0

    def leave(self) -> None:
        """Close the channels, and give up the staged copies."""
        for channel in self.member.channels:
            channel.close()
        if self.copy is not None:
            self.copy.close()


class WeightReceiver:
    """One transfer at a time, in a thread of its own, into memory of the process whose weights are on `device`."""

    def __init__(self, device: torch.device, folder: Path = SHARED_MEMORY) -> None:
        """`folder`: for the copy that receivers of this host share."""
        self._device = device
        self._folder = folder
        self._lock = threading.Lock()  # a group may be left while a thread joins it
        self._join: Join | None = None  # of a group that no transfer has joined yet
        self._group: _Group | None = None
        self._thread: threading.Thread | None = None
        self._transfer: _Transfer | None = None

    def enter(self, join: Join) -> None:
        """Leave the old group; the next transfer's thread joins the new one, because joining can block."""
        self.leave()
        with self._lock:
            self._join = join

    @property
    def has_group(self) -> bool:
        """Whether there is a group to receive from."""
        return self._join is not None or self._group is not None

    def begin(self, plan: TransferPlan, *, digest: bool, delta: bool = False) -> None:
        """Start the thread. Its outcome is that of `received`. `delta`: the senders send differences."""
        self.release()
        self._transfer = _Transfer()
        run = partial(self._run, plan, self._transfer, self._join, with_digest=digest, delta=delta)
        self._thread = threading.Thread(target=run, name="weight-receiver", daemon=True)
        self._thread.start()

    def _run(
        self, plan: TransferPlan, transfer: _Transfer, join: Join | None, *, with_digest: bool, delta: bool
    ) -> None:
        """`join`: a group that is still to be joined."""
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # per thread: a new one begins on device 0
            if join is not None:
                self._keep(join, _Group(join(self._device), self._folder, delta=delta))
            group = self._group
            if group is None:
                raise WeightSyncError(LEFT)
            number = group.transfers
            group.transfers += 1
            if isinstance(group.copy, FollowerCopy):
                transfer.staged, digest = group.copy.receive(number, plan)
            else:
                transfer.staged = stage = (
                    OwnStage(plan.blocks, group.member.channels[0])
                    if group.copy is None
                    else LeaderStage(group.copy.begin(number, plan.blocks))
                )
                digest = receive(plan, group.member.channels, group.incoming, stage, with_digest=with_digest)
            transfer.received = Received(digest=digest)
        except BaseException as e:  # handed to the engine's thread by `received`
            transfer.error = e

    def _keep(self, join: Join, group: _Group) -> None:
        """The group that was joined is the present one, unless it was left meanwhile. Raises WeightSyncError then."""
        with self._lock:
            if self._join is join:
                self._group, self._join = group, None
                return
        group.leave()
        raise WeightSyncError(LEFT)

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
        with self._lock:
            group, self._group, self._join = self._group, None, None
        if group is not None:
            group.leave()


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
