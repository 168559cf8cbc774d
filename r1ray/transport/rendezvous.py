"""Rendezvous of a group: all members report to the learner's store and enter the group once all are there.

    learner       listen(...)  opens the store; accept() waits for every member's report, then writes the verdict
    other ranks   offer(...)   if they send too: report, wait for the verdict, enter their groups
    receiver      join(...)    reports, waits for the verdict, enters the group of each sender
    controller    abort(...)   if it knows that a member has failed: the rendezvous or the formed groups end for all

The verdict is written once, by the first writer. Forming a group of gloo or NCCL waits for a dead member until its
timeout; a rendezvous ends as soon as the controller knows. After the verdict an abort is a key of its own
(abortable.py), which ends the transfer in progress; the group is never used again.

A receiver reports the identity of its shared memory. Of those with the same one, which are on one host, only the first
enters the group, and the others get its copy (actors/host_copy.py): a host takes the weights from the network once.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgpack
import torch
from torch.distributed import PrefixStore, Store

from r1ray.errors import ConfigError, WeightSyncError
from r1ray.transport.abortable import ABORTED
from r1ray.transport.channel import Channel, Place, Rendezvous
from r1ray.transport.store import listen_at, reach, serve

TRANSPORTS = ("gloo", "nccl", "ipc")
_VERDICT = "verdict"
_ON = "on"
_LEADERS = "leaders"
"""Key: for each receiver the rank of the one whose copy it gets, or its own. Written before the verdict."""
_POLL_S = 0.01
_ABORT_S = 8.0
"""Timeout for reaching a store that may be gone. Longer than a name server's 5 s: torch looks up each address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A receiver of a group that is complete."""

    rank: int
    leader: int  # rank of the receiver on this host that is in the group
    followers: tuple[int, ...]  # ranks of those that get this one's copy
    channels: tuple[Channel, ...]  # by sender; empty: this is a follower
    store: Store  # of the group's epoch
    watch: Store  # the same through another connection, to look for an abort
    rendezvous: Rendezvous


class Listener:
    """The sender's end before its receivers have joined."""

    def __init__(
        self, transport: str, *, address: str, epoch: int, world_size: int, timeout_s: float, senders: int
    ) -> None:
        if transport not in TRANSPORTS:
            raise ConfigError(f"sync.transport is {transport!r}; known are {', '.join(TRANSPORTS)}")
        store = serve(listen_at(address), address=address, timeout_s=timeout_s)
        self.rendezvous = Rendezvous(
            transport=transport,
            address=address,
            port=store.port,
            epoch=epoch,
            world_size=world_size,
            timeout_s=timeout_s,
            senders=senders,
        )
        self._store = _of_epoch(store, self.rendezvous)

    def accept(self, *, interface: str | None = None, device: torch.device | None = None) -> Channel:
        """Form the group of rank 0 once every member has reported. `device`: of the weights; gloo needs none.

        Raises WeightSyncError if one does not within the timeout, or if the rendezvous is aborted.
        """
        r = self.rendezvous
        receivers, senders = range(1, r.world_size), range(1, r.senders)
        missing = self._missing([*map(_report, receivers), *map(_sender, senders)])
        if not missing:
            leaders = leaders_of([self._store.get(_report(rank)) for rank in receivers])
            self._store.set(_LEADERS, msgpack.packb(leaders))
        who = f"receivers {[rank for rank in receivers if _report(rank) in missing]}"
        if late := [rank for rank in senders if _sender(rank) in missing]:
            who += f" and learner ranks {late}"
        reason = f"{who} did not report within {r.timeout_s:g} s (sync.bucket_deadline_s)"
        _raise_unless_on(_settle(self._store, reason if missing else _ON), r)
        return _enter(self._store, self._store.clone(), r, _place(0, 0, leaders), interface, r.address, device)

    def _missing(self, reports: list[str]) -> list[str]:
        """Those that have not been made by the deadline or by the abort."""
        until = time.monotonic() + self.rendezvous.timeout_s
        while not self._store.check(reports):
            if time.monotonic() >= until or self._store.check([_VERDICT]):
                return [report for report in reports if not self._store.check([report])]
            time.sleep(_POLL_S)
        return []


def listen(
    transport: str, *, address: str, epoch: int, world_size: int, timeout_s: float, senders: int = 1
) -> Listener:
    """Open the rendezvous of one epoch at the learner, on its `address` only; returns at once.

    Raises ConfigError for an unknown transport, or an address that is not of this machine.
    """
    return Listener(
        transport, address=address, epoch=epoch, world_size=world_size, timeout_s=timeout_s, senders=senders
    )


def offer(rendezvous: Rendezvous, *, sender: int, interface: str | None = None, host: str | None = None) -> Channel:
    """Join as the learner rank `sender` (from 1) that sends too; blocks until its group has formed.

    Raises WeightSyncError.
    """
    store, leaders = _meet(rendezvous, _sender(sender), "", f"learner rank {sender}")
    return _enter(store, store.clone(), rendezvous, _place(sender, 0, leaders), interface, host, None)


def leaders_of(memories: Sequence[bytes]) -> list[int]:
    """For each receiver (ranks from 1) the first one with the same shared memory; b"" shares with none.

    Example: [b"m", b"", b"n", b"m", b""] gives [1, 2, 3, 1, 5].
    """
    first: dict[bytes, int] = {}
    return [first.setdefault(memory, rank) if memory else rank for rank, memory in enumerate(memories, 1)]


def join(
    rendezvous: Rendezvous,
    *,
    rank: int,
    memory: str = "",
    interface: str | None = None,
    host: str | None = None,
    device: torch.device | None = None,
) -> Member:
    """Join the group as receiver `rank` (from 1). Blocks until it has formed. Raises WeightSyncError.

    `memory`: identity of the shared memory of this host; empty: it gets a copy of its own. `device`: of the weights;
    gloo needs none.
    """
    store, leaders = _meet(rendezvous, _report(rank), memory, f"receiver {rank}")
    leader, senders = leaders[rank - 1], range(rendezvous.senders)
    places = [_place(sender, rank, leaders) for sender in senders if leader == rank]
    watch = store.clone()  # one for all groups: torch looks up the name of the host for each connection
    return Member(
        rank=rank,
        leader=leader,
        followers=tuple(r for r, led_by in enumerate(leaders, 1) if led_by == rank != r),
        channels=tuple(_enter(store, watch, rendezvous, place, interface, host, device) for place in places),
        store=store,
        watch=watch,
        rendezvous=rendezvous,
    )


def _meet(rendezvous: Rendezvous, report: str, value: str, who: str) -> tuple[Store, list[int]]:
    """Report, and wait for the verdict; returns the store and the leaders."""
    store = _store(rendezvous, rendezvous.timeout_s)
    try:
        store.set(report, value)
        store.wait([_VERDICT], timedelta(seconds=rendezvous.timeout_s))
        verdict = store.get(_VERDICT).decode()
        leaders = msgpack.unpackb(store.get(_LEADERS)) if verdict == _ON else []
    except RuntimeError as e:
        raise WeightSyncError(
            f"{who} waited for the weight-sync group of epoch {rendezvous.epoch} to be complete; the learner is "
            f"gone or sync.bucket_deadline_s={rendezvous.timeout_s:g} passed: {e}"
        ) from e
    _raise_unless_on(verdict, rendezvous)
    return store, leaders


def abort(rendezvous: Rendezvous, reason: str) -> bool:
    """End the rendezvous, or the group if it has formed, for all members. False if the learner's store does not answer.

    Then no member waits in it: the learner is gone, and its own death is noticed.
    """
    try:
        with socket.create_connection((rendezvous.address, rendezvous.port), _ABORT_S):
            pass  # torch repeats a refused connection until its timeout
        store = _store(rendezvous, _ABORT_S)
        if _settle(store, reason) == _ON:
            store.set(ABORTED, reason)
        return True
    except (WeightSyncError, RuntimeError, OSError):
        return False


def _store(rendezvous: Rendezvous, timeout_s: float) -> Store:
    try:
        store = reach(rendezvous.address, rendezvous.port, timeout_s=timeout_s)
    except RuntimeError as e:
        raise WeightSyncError(f"cannot reach the learner's store at {rendezvous.address}:{rendezvous.port}: {e}") from e
    return _of_epoch(store, rendezvous)


def _of_epoch(store: Store, rendezvous: Rendezvous) -> Store:
    return PrefixStore(f"r1ray/{rendezvous.epoch}", store)


def _report(rank: int) -> str:
    return f"here/{rank}"


def _sender(rank: int) -> str:
    return f"sender/{rank}"


def _place(sender: int, rank: int, leaders: Sequence[int]) -> Place:
    """Of a receiver (or the sender, rank 0) in the group of a sender and all leaders, in the order of their ranks."""
    members = [0, *sorted(set(leaders))]
    return Place(stream=sender, rank=members.index(rank), size=len(members))


def _settle(store: Store, verdict: str) -> str:
    """Write the verdict unless there is one already; returns the verdict in the store."""
    return bytes(store.compare_set(_VERDICT, "", verdict)).decode()


def _raise_unless_on(verdict: str, rendezvous: Rendezvous) -> None:
    if verdict != _ON:
        raise WeightSyncError(f"weight-sync group of epoch {rendezvous.epoch} did not form: {verdict}")


def _enter(
    store: Store,
    watch: Store,
    rendezvous: Rendezvous,
    place: Place,
    interface: str | None,
    host: str | None,
    device: torch.device | None,
) -> Channel:
    if rendezvous.transport == "gloo":
        from r1ray.transport.gloo import GlooChannel

        return GlooChannel(store, watch, rendezvous, place, interface=interface, host=host)
    from r1ray.transport.cuda import CudaChannel  # NCCL chooses its interfaces by its own NCCL_SOCKET_IFNAME

    assert device is not None, f"{rendezvous.transport} needs the device of the weights"
    return CudaChannel(store, watch, rendezvous, place, device=device)
