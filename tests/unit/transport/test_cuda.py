"""The deadlines of the NCCL channel, on a fake group: no GPU is needed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Place, Rendezvous
from r1ray.transport.cuda import CudaChannel


class Work:
    def __init__(self, done: bool) -> None:
        self._done = done

    def is_completed(self) -> bool:
        return self._done

    def wait(self) -> None: ...


class FakeCuda:
    """The current device of each thread."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    @property
    def current(self) -> int:
        return getattr(self._of_thread, "device", 0)

    @contextlib.contextmanager
    def use(self, device: torch.device) -> Iterator[None]:
        before, self._of_thread.device = self.current, device.index
        yield
        self._of_thread.device = before


class Group:
    """`members` is set once all have come into the communicator; `works` are what the broadcasts return."""

    def __init__(self, works: list[Work]) -> None:
        self.members = threading.Event()
        self.works = works
        self.callers: list[threading.Thread] = []
        self.devices: list[int] = []  # current device of the caller
        self.aborted = False

    def broadcast(self, buffer: torch.Tensor, root: int) -> Work:
        self.callers.append(threading.current_thread())
        self.devices.append(torch.cuda.current_device())
        self.members.wait()
        return self.works.pop(0)

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """CUDA as threads see it: the current device belongs to a thread, and is 0 in a new one."""
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "current_device", lambda: fake.current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "stream", lambda which: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "device", fake.use)
    return fake


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    made = Group([Work(True), Work(True), Work(False)])
    monkeypatch.setattr(CudaChannel, "_nccl_group", lambda self: made)
    yield made
    made.members.set()


def channel(timeout_s: float) -> CudaChannel:
    rendezvous = Rendezvous(transport="nccl", address="a", port=1, epoch=3, world_size=2, timeout_s=timeout_s)
    return CudaChannel(
        HashStore(), HashStore(), rendezvous, Place(stream=0, rank=0, size=2), device=torch.device("cuda", 3)
    )


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


def test_the_first_broadcast_is_made_on_the_channel_s_device_whatever_its_thread_has(group: Group) -> None:
    group.members.set()
    channel(60.0).broadcast(BUFFER)
    assert group.devices == [3]


def test_a_group_is_made_without_the_watchdog_that_would_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's groups, made before and after, keep theirs."""
    monkeypatch.setenv("TORCH_NCCL_ENABLE_MONITORING", "1")
    monkeypatch.delenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", raising=False)
    names = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_ENABLE_MONITORING")
    seen: list[list[str | None]] = []

    class Made:
        class Options: ...

        def __init__(self, *args: Any) -> None:
            seen.append([os.environ.get(name) for name in names])

    monkeypatch.setattr(torch.distributed, "ProcessGroupNCCL", Made, raising=False)
    channel(1.0)
    assert seen == [["0", "0"]]
    assert [os.environ.get(name) for name in names] == [None, "1"]
