"""Receiving in a thread: its CUDA device, one staged copy for all receivers of a host, and failures."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore, Store, TCPStore

from actors import host_copy
from actors.shared_file import SharedFile
from actors.staging import WeightReceiver
from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import ABORTED
from r1ray.transport.channel import Channel, Pending, Place, Rendezvous
from r1ray.transport.cuda import CudaChannel
from r1ray.transport.plan import Bucket, TensorSpec, one_sender, pack_into, transfer_plan
from r1ray.transport.rendezvous import Member
from r1ray.transport.store import listen_at, reach, serve
from r1ray.util.network import LOOPBACK

SPECS = [
    TensorSpec(name="a", dtype="float32", shape=(3, 5)),
    TensorSpec(name="b", dtype="bfloat16", shape=(7,)),  # 14 bytes: what follows it must be aligned
    TensorSpec(name="c", dtype="float32", shape=(4,)),
]
PLAN = transfer_plan(one_sender(SPECS), 16)


def server() -> TCPStore:
    return serve(listen_at(LOOPBACK), address=LOOPBACK, timeout_s=20.0)


def client(store: TCPStore) -> Store:
    return reach(LOOPBACK, store.port, timeout_s=20.0)


class Wire(Channel):
    """Delivers prepared buckets; `fail_at` raises at that one. Records the order of what happens."""

    def __init__(self, weights: dict[str, torch.Tensor], fail_at: int | None = None) -> None:
        self._weights = weights
        self._fail_at = fail_at
        self._sent = 0
        self.log: list[str] = []
        self.closed = False

    def buffer(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def start(self, buffer: torch.Tensor) -> Pending:
        number, self._sent = self._sent % len(PLAN.blocks), self._sent + 1
        self.log.append(f"start {number}")
        return Arriving(self, number, buffer)

    def arrive(self, number: int, buffer: torch.Tensor) -> None:
        if number == self._fail_at:
            raise WeightSyncError("a peer died")
        pack_into(buffer, (self._weights[spec.name] for spec in PLAN.streams[0][number].specs))
        self.log.append(f"arrived {number}")

    def memory(self, nbytes: int) -> torch.Tensor:
        self.log.append("room")
        return torch.empty(nbytes, dtype=torch.uint8)

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Arriving(Pending):
    wire: Wire
    number: int
    buffer: torch.Tensor

    def wait(self) -> None:
        self.wire.arrive(self.number, self.buffer)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {spec.name: torch.randn(spec.shape).to(spec.torch_dtype) for spec in SPECS}


def member(wire: Wire | None, *, rank: int = 1, others: int = 0, store: Store | None = None) -> Member:
    """A receiver of a host with `others` beside the leader, which is rank 1 and alone has a wire."""
    rendezvous = Rendezvous(transport="gloo", address="a", port=1, epoch=1, world_size=2 + others, timeout_s=20.0)
    return Member(
        rank=rank,
        leader=1,
        followers=tuple(range(2, 2 + others)) if wire is not None else (),
        channels=(wire,) if wire is not None else (),
        store=HashStore() if store is None else store,
        watch=HashStore() if store is None else store.clone(),
        rendezvous=rendezvous,
    )


def begun(of: Member, folder: Path) -> WeightReceiver:
    made = WeightReceiver(torch.device("cpu"), folder)
    made.enter(lambda device: of)
    made.begin(PLAN, digest=True)
    return made


def ended(made: WeightReceiver) -> WeightReceiver:
    assert made._thread is not None
    made._thread.join(20.0)
    return made


def equal(found: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> bool:
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_receiver_alone_on_its_host_keeps_the_buckets(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    made = ended(begun(member(Wire(weights)), tmp_path))
    outcome = made.received()
    assert outcome is not None
    assert len(outcome.digest) == 32
    assert equal(made.tensors(), weights)
    assert list(tmp_path.iterdir()) == []
    made.release()
    with pytest.raises(WeightSyncError, match="before all of it is received"):
        made.tensors()


def test_the_next_bucket_is_on_the_wire_while_one_is_kept(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wire = Wire(weights)
    ended(begun(member(wire), tmp_path)).received()
    beginning = ["room", "start 0", "room", "arrived 0", "start 1", "room", "arrived 1", "start 2"]
    assert wire.log == [*beginning, "arrived 2"]


def test_receivers_of_a_host_share_one_staged_copy(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    store = server()
    leader = begun(member(Wire(weights), others=3, store=store), tmp_path)
    assert leader._thread is not None
    assert leader.received() is None  # it waits for the others to map its copy
    followers = [begun(member(None, rank=rank, store=client(store)), tmp_path) for rank in (2, 3, 4)]
    found = [ended(made).tensors() for made in (leader, *followers)]
    assert list(tmp_path.iterdir()) == []  # what is mapped stays valid
    assert all(equal(tensors, weights) for tensors in found)
    assert len({received.digest for made in (leader, *followers) if (received := made.received())}) == 1

    found[1]["a"] += 1.0  # as a model may that keeps views
    assert equal(found[0], weights)
    assert equal(found[2], weights)

    weights["a"] *= 2.0
    for made in (leader, *followers):  # a second transfer of the same group
        made.begin(PLAN, digest=True)
    assert all(equal(ended(made).tensors(), weights) for made in (leader, *followers))
    assert not equal(found[0], weights)


@pytest.fixture
def files_made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made: list[Path] = []

    def counted(blocks: Sequence[Bucket], folder: Path) -> SharedFile:
        file = SharedFile(blocks, folder)
        made.append(file.path)
        return file

    monkeypatch.setattr(host_copy, "SharedFile", counted)
    return made


@dataclass
class Host:
    """A leader and two followers, which are ranks 2 and 3."""

    store: TCPStore
    receivers: list[WeightReceiver]
    transfers: int = 1

    def again(self) -> None:
        for made in self.receivers:
            made.begin(PLAN, digest=True)
        for made in self.receivers:
            assert ended(made).received() is not None
        self.transfers += 1

    def wait_until_released(self, *ranks: int) -> None:
        self.store.wait([f"copy/1/{self.transfers - 1}/released/{rank}" for rank in ranks], timedelta(seconds=20))


@pytest.fixture
def host(weights: dict[str, torch.Tensor], files_made: list[Path], tmp_path: Path) -> Host:
    store = server()
    receivers = [begun(member(Wire(weights), others=2, store=store), tmp_path)]
    receivers += [begun(member(None, rank=rank, store=client(store)), tmp_path) for rank in (2, 3)]
    for made in receivers:
        ended(made)
    return Host(store, receivers)


def test_a_staged_copy_that_nobody_reads_is_written_again(
    host: Host, weights: dict[str, torch.Tensor], files_made: list[Path], tmp_path: Path
) -> None:
    for _ in range(3):
        for made in host.receivers:
            made.release()
        host.wait_until_released(2, 3)
        weights["c"] += 1.0
        host.again()
        assert all(equal(made.tensors(), weights) for made in host.receivers)
    assert len(files_made) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reader", [0, 2])
def test_a_staged_copy_is_not_written_while_a_model_reads_it(
    host: Host, weights: dict[str, torch.Tensor], files_made: list[Path], reader: int
) -> None:
    """A model keeps one tensor of each copy until it has loaded the next: two files take turns."""
    for turn in range(4):
        before = {name: tensor.clone() for name, tensor in weights.items()}
        kept = host.receivers[reader].tensors()["c"]
        for made in host.receivers:
            made.release()
        host.wait_until_released(*(rank for rank in (2, 3) if rank != reader + 1))
        weights["c"] += 1.0
        host.again()
        assert torch.equal(kept, before["c"])
        assert all(equal(made.tensors(), weights) for made in host.receivers)
        del kept
        if turn and reader:  # the first copy's last reader is gone
            released = f"copy/1/{host.transfers - 2}/released/{reader + 1}"
            host.store.wait([released], timedelta(seconds=20))
    assert len(files_made) == 2


def test_a_group_that_is_left_keeps_no_file_open(host: Host, tmp_path: Path) -> None:
    def open_files() -> list[str]:
        paths = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [path for path in paths if path.startswith(str(tmp_path))]

    assert open_files()
    for made in host.receivers:
        made.release()
        made.leave()
    assert open_files() == []


def test_a_follower_ends_with_its_group(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    store = server()
    follower = begun(member(None, rank=2, store=client(store)), tmp_path)
    leader = ended(begun(member(Wire(weights, fail_at=1), others=1, store=store), tmp_path))
    with pytest.raises(WeightSyncError, match="a peer died"):
        leader.received()
    assert list(tmp_path.iterdir()) == []
    store.set(ABORTED, "rollout-1: a peer died")
    with pytest.raises(WeightSyncError, match=r"receiver 2 .* aborted: rollout-1: a peer died|cannot map"):
        ended(follower).received()


def test_a_failed_transfer_leaves_nothing(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    made = ended(begun(member(Wire(weights, fail_at=1)), tmp_path))
    with pytest.raises(WeightSyncError, match="a peer died"):
        made.received()
    with pytest.raises(WeightSyncError, match="before all of it is received"):
        made.tensors()


def test_shared_memory_without_room_is_named(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    made = ended(begun(member(Wire(weights), others=1), tmp_path))
    with pytest.raises(WeightSyncError, match=r"No space left on device; give this host a larger shared memory"):
        made.received()
    assert list(tmp_path.iterdir()) == []


def test_a_new_group_ends_the_old_one(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    old = Wire(weights)
    made = ended(begun(member(old), tmp_path))
    assert made.has_group
    made.enter(lambda device: member(Wire(weights)))
    assert old.closed
    made.leave()
    assert not made.has_group


def test_a_group_that_is_left_while_it_forms_does_not_replace_the_next_one(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    old, new, forms = Wire(weights), Wire(weights), threading.Event()

    def slowly(device: torch.device) -> Member:
        assert forms.wait(20.0)
        return member(old)

    made = WeightReceiver(torch.device("cpu"), tmp_path)
    made.enter(slowly)
    made.begin(PLAN, digest=True)
    made.enter(lambda device: member(new))
    forms.set()
    with pytest.raises(WeightSyncError, match="left while a transfer began"):
        ended(made).received()
    assert old.closed
    assert not new.closed
    made.begin(PLAN, digest=True)
    assert ended(made).received() is not None
    assert equal(made.tensors(), weights)


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

    def join(device: torch.device) -> Member:
        made = CudaChannel(HashStore(), HashStore(), rendezvous, Place(stream=0, rank=1, size=3), device=device)
        seen.append((current_device(), str(made._device)))
        raise WeightSyncError("far enough")

    for index in (0, 1):
        torch.cuda.set_device(torch.device("cuda", index))  # as vLLM does in the main thread of each process
        made = WeightReceiver(torch.device("cuda", index))
        made.enter(join)
        made.begin(PLAN, digest=False)
        with pytest.raises(WeightSyncError, match="far enough"):
            ended(made).received()
    assert seen == [(0, "cuda:0"), (1, "cuda:1")]
