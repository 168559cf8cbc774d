"""The deadlines of the NCCL channel, on a fake group: no GPU is needed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Rendezvous
from r1ray.transport.cuda import CudaChannel


class Work:
    def __init__(self, done: bool) -> None:
        self._done = done

    def is_completed(self) -> bool:
        return self._done

    def wait(self) -> None: ...


class Group:
    """`members` is set once all have come into the communicator; `works` are what the broadcasts return."""

    def __init__(self, works: list[Work]) -> None:
        self.members = threading.Event()
        self.works = works
        self.callers: list[threading.Thread] = []
        self.aborted = False

    def broadcast(self, buffer: torch.Tensor, root: int) -> Work:
        self.callers.append(threading.current_thread())
        self.members.wait()
        return self.works.pop(0)

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda which: contextlib.nullcontext())


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    made = Group([Work(True), Work(True), Work(False)])
    monkeypatch.setattr(CudaChannel, "_nccl_group", lambda self: made)
    yield made
    made.members.set()


def channel(timeout_s: float) -> CudaChannel:
    rendezvous = Rendezvous(transport="nccl", address="a", port=1, epoch=3, world_size=2, timeout_s=timeout_s)
    return CudaChannel(HashStore(), rendezvous, rank=0)


BUFFER = torch.empty(8, dtype=torch.uint8)


def test_a_member_that_never_comes_costs_one_deadline_and_the_group_is_aborted(group: Group) -> None:
    with pytest.raises(WeightSyncError, match=r"epoch 3.*sync.bucket_deadline_s=0.05.*NCCL communicator"):
        channel(0.05).broadcast(BUFFER)
    assert group.aborted


def test_only_the_first_broadcast_is_made_in_a_thread_of_its_own(group: Group) -> None:
    group.members.set()
    made = channel(60.0)
    made.broadcast(BUFFER)
    made.broadcast(BUFFER)
    assert [caller is threading.current_thread() for caller in group.callers] == [False, True]
    assert not group.aborted


def test_a_broadcast_that_does_not_end_costs_one_deadline_too(group: Group) -> None:
    group.members.set()
    group.works = [Work(False)]
    with pytest.raises(WeightSyncError, match="the deadline has passed"):
        channel(0.05).broadcast(BUFFER)
    assert group.aborted


def test_what_the_first_broadcast_raises_is_told(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(buffer: Any, root: int) -> Any:
        raise RuntimeError("unhandled system error")

    monkeypatch.setattr(group, "broadcast", fail)
    with pytest.raises(WeightSyncError, match="unhandled system error"):
        channel(60.0).broadcast(BUFFER)
