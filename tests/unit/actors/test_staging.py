"""Receiving in a thread: its CUDA device, one staged copy for all processes of a host, and failures."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from actors.staging import OwnStage, SharedStage, WeightReceiver
from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Channel, Rendezvous
from r1ray.transport.cuda import CudaChannel
from r1ray.transport.plan import Bucket, TensorSpec, bucket_plan, pack_into

SPECS = [
    TensorSpec(name="a", dtype="float32", shape=(3, 5)),
    TensorSpec(name="b", dtype="bfloat16", shape=(7,)),  # 14 bytes: what follows it must be aligned
    TensorSpec(name="c", dtype="float32", shape=(4,)),
]
PLAN = bucket_plan(SPECS, 16)


class Wire(Channel):
    """Delivers prepared buckets; `fail_at` raises at that one."""

    def __init__(self, weights: dict[str, torch.Tensor], fail_at: int | None = None) -> None:
        self._weights = weights
        self._fail_at = fail_at
        self._sent = 0
        self.closed = False

    def buffer(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def broadcast(self, buffer: torch.Tensor) -> None:
        if self._sent == self._fail_at:
            raise WeightSyncError("a peer died")
        bucket: Bucket = PLAN[self._sent]
        pack_into(buffer, (self._weights[spec.name] for spec in bucket.specs))
        self._sent += 1

    def stage(self, buffer: torch.Tensor) -> torch.Tensor:
        return buffer

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {spec.name: torch.randn(spec.shape).to(spec.torch_dtype) for spec in SPECS}


def receive(wire: Wire, stage: OwnStage | SharedStage) -> WeightReceiver:
    made = WeightReceiver(torch.device("cpu"))
    made.enter(lambda device: wire)
    made.begin(PLAN, stage, digest=True)
    assert made._thread is not None
    made._thread.join(20.0)
    return made


def equal(found: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> bool:
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def test_an_engine_of_one_process_keeps_the_buckets(weights: dict[str, torch.Tensor]) -> None:
    made = receive(Wire(weights), OwnStage(PLAN))
    outcome = made.received()
    assert outcome is not None
    assert len(outcome.digest) == 32
    assert equal(made.tensors(), weights)
    made.release()
    with pytest.raises(WeightSyncError, match="before all of it is received"):
        made.tensors()


def test_processes_of_one_engine_share_one_staged_copy(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "staged"
    first = receive(Wire(weights), SharedStage(PLAN, file, writer=True))
    others = [receive(Wire(weights), SharedStage(PLAN, file, writer=False)) for _ in range(3)]
    assert [path.name for path in tmp_path.iterdir()] == ["staged"]
    assert file.stat().st_size == 3 * 64  # three buckets, each at a multiple of 64 bytes
    found = [made.tensors() for made in (first, *others)]
    assert all(equal(tensors, weights) for tensors in found)
    assert len({digest.digest for made in (first, *others) if (digest := made.received())}) == 1
    others[0].release()
    assert file.exists()
    first.release()
    assert not file.exists()
    assert equal(found[1], weights)  # what is mapped stays valid


def test_a_failed_transfer_leaves_no_file(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    made = receive(Wire(weights, fail_at=1), SharedStage(PLAN, tmp_path / "staged", writer=True))
    with pytest.raises(WeightSyncError, match="a peer died"):
        made.received()
    with pytest.raises(WeightSyncError, match="before all of it is received"):
        made.tensors()
    made.release()
    assert list(tmp_path.iterdir()) == []


def test_shared_memory_without_room_is_named(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    made = receive(Wire(weights), SharedStage(PLAN, tmp_path / "staged", writer=True))
    with pytest.raises(WeightSyncError, match=r"No space left on device; a larger shared memory"):
        made.received()
    assert list(tmp_path.iterdir()) == []


def test_a_new_group_ends_the_old_one(weights: dict[str, torch.Tensor]) -> None:
    old = Wire(weights)
    made = receive(old, OwnStage(PLAN))
    assert made.has_group
    made.enter(lambda device: Wire(weights))
    assert old.closed
    made.leave()
    assert not made.has_group


@pytest.fixture
def current_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """CUDA's current device as threads see it: 0 in a new one, whatever the main thread has set."""
    of_thread = threading.local()

    def current() -> int:
        return getattr(of_thread, "device", 0)

    def set_device(device: torch.device) -> None:
        of_thread.device = device.index

    @contextlib.contextmanager
    def use(device: torch.device) -> Iterator[None]:
        before = current()
        set_device(device)
        yield
        of_thread.device = before

    monkeypatch.setattr(torch.cuda, "current_device", current)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(torch.cuda, "device", use)
    return current


def test_every_process_receives_on_the_device_of_its_weights(
    current_device: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of one engine must not meet on GPU 0, which NCCL refuses as a duplicate."""
    monkeypatch.setattr(CudaChannel, "_nccl_group", lambda self: None)
    rendezvous = Rendezvous(transport="nccl", address="a", port=1, epoch=1, world_size=3, timeout_s=1.0)
    seen: list[tuple[int, str]] = []

    def join(device: torch.device) -> Channel:
        made = CudaChannel(HashStore(), rendezvous, rank=1, device=device)
        seen.append((current_device(), str(made._device)))
        raise WeightSyncError("far enough")

    for index in (0, 1):
        torch.cuda.set_device(torch.device("cuda", index))  # as vLLM does in the main thread of each process
        made = WeightReceiver(torch.device("cuda", index))
        made.enter(join)
        made.begin(PLAN, OwnStage(PLAN), digest=False)
        assert made._thread is not None
        made._thread.join(20.0)
        with pytest.raises(WeightSyncError, match="far enough"):
            made.received()
    assert seen == [(0, "cuda:0"), (1, "cuda:1")]
