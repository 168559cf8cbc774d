"""One staged copy of the weights for all receivers of a host, in shared memory.

The rendezvous makes the first receiver of a host its leader, which alone is in the groups (transport/rendezvous.py):

    leader      makes a file and announces its path; receives into it, and marks each bucket that has been kept;
                announces its digest; waits until every follower has mapped the file, then removes its name
    follower    maps the file, waits for mark after mark, takes over the digest

Announcements and marks are keys in the group's store. A follower's deadline is that of one bucket, from mark to mark,
as for a receiver in the group. If either end fails, the controller aborts the group, which ends all waits. The file has
a name only while it is being received, so a process that is killed later leaves nothing behind.

Processes map the file privately to load from it: what a model changes in place stays its own. A loader of a
tensor-parallel shard touches only the rows that it takes.

Alternatives: every receiver in the group (gloo sends each copy through the learner's host or another receiver's);
memfd, which needs one process namespace; a digest of each follower, which would read the same pages again.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch.distributed import DistStoreError, PrefixStore

from actors.shm_cleanup import SHARED_MEMORY, STAGED
from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import AbortSignal, abortable
from r1ray.transport.plan import Bucket, TransferPlan, unpack
from r1ray.transport.rendezvous import Member

T = TypeVar("T")
_ALIGNED = mmap.PAGESIZE
"""Offsets of blocks in a file are multiples of this."""
_LIBC = ctypes.CDLL(None)
_MADV_POPULATE_WRITE = 23
_GRACE_S = 2.0
"""Lets the failure of a leader, which names what it waited for, pass before its followers'."""
_SLICE = timedelta(seconds=1)
"""Of a wait: a thread that was left behind ends after one."""
_PATH, _DIGEST, _MAPPED = "path", "digest", "mapped"
BOOT = Path("/proc/sys/kernel/random/boot_id")


def memory_id(folder: Path = SHARED_MEMORY) -> str:
    """Identity of the shared memory that this process can exchange files in: of the running kernel, mount and user."""
    return f"{BOOT.read_text(encoding='ascii').strip()} {folder.stat().st_dev} {os.getuid()}"


class SharedFile:
    """A file with room for all blocks."""

    def __init__(self, blocks: Sequence[Bucket], folder: Path) -> None:
        """Raises WeightSyncError if there is no room for the file."""
        self._blocks, self._offsets = blocks, _offsets(blocks)
        self._reserved: set[int] = set()
        self._lock = threading.Lock()  # no number of a closed file reaches the system, which may have given it away
        try:
            fd, name = tempfile.mkstemp(prefix=STAGED, dir=folder)
        except OSError as e:
            raise WeightSyncError(f"cannot stage weights in {folder}: {e.strerror}") from e
        self._fd: int | None = fd
        self.path = Path(name)
        os.ftruncate(fd, self._offsets[-1])
        self._memory = torch.from_file(name, shared=True, size=self._offsets[-1], dtype=torch.uint8)

    def block(self, number: int) -> torch.Tensor:
        """Memory of a block. Reserved first: a write beyond what shared memory has left would kill the process.

        Raises WeightSyncError. Block by block, because the kernel clears what it reserves.
        """
        start, nbytes = self._offsets[number], self._blocks[number].nbytes
        try:
            with self._lock:
                if self._fd is None:
                    raise WeightSyncError(f"the transfer into {self.path} has ended")
                if nbytes and number not in self._reserved:
                    os.posix_fallocate(self._fd, start, nbytes)
                    self._map_pages(start, nbytes)
                self._reserved.add(number)
        except OSError as e:
            whole = self._offsets[-1] / 2**30
            raise WeightSyncError(
                f"cannot stage {whole:.2f} GiB of weights in {self.path}: {e.strerror}; give this host a larger shared "
                f"memory ({self.path.parent}): it holds one copy of the weights, and of those before until they are "
                "replaced"
            ) from e
        return self._memory[start : start + nbytes]

    def _map_pages(self, start: int, nbytes: int) -> None:
        """Map a block at once: a fault for each of its pages takes longer. Without effect before Linux 5.14."""
        address = ctypes.c_void_p(self._memory.data_ptr() + start)
        _LIBC.madvise(address, ctypes.c_size_t(nbytes), _MADV_POPULATE_WRITE)

    def remove(self) -> None:
        """Remove the name; what is mapped stays."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
            self._fd = None
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class PrivateMapping:
    """All tensors of a file as this process sees them."""

    def __init__(self, blocks: Sequence[Bucket], path: str | Path) -> None:
        """Raises WeightSyncError if there is no such file."""
        self._blocks, self._offsets = blocks, _offsets(blocks)
        try:
            self._memory = torch.from_file(str(path), shared=False, size=self._offsets[-1], dtype=torch.uint8)
        except RuntimeError as e:
            raise WeightSyncError(f"cannot map the staged weights of this host in {path}: {e}") from e

    def tensors(self) -> dict[str, torch.Tensor]:
        """Views by name."""
        found: dict[str, torch.Tensor] = {}
        for block, start in zip(self._blocks, self._offsets[:-1], strict=True):
            found.update(unpack(block, self._memory[start : start + block.nbytes]))
        return found


class LeaderMarks:
    """What a leader tells its followers in one transfer."""

    def __init__(self, member: Member, transfer: int) -> None:
        """The number of the transfer counts those of the group."""
        self._followers, self._keys = member.followers, _Keys(member, transfer)

    def announce(self, path: Path) -> None:
        """The file that followers are to map. Raises WeightSyncError, as the others do."""
        self._keys.set(_PATH, str(path))

    def kept(self, stream: int, number: int) -> None:
        """A bucket of a stream is in the file."""
        self._keys.set(f"{stream}/{number}")

    def finish(self, digest: str) -> None:
        """All buckets are; return when every follower has mapped the file."""
        self._keys.set(_DIGEST, digest)
        what = f"receivers {list(self._followers)} of this host to map its copy"
        mapped = [f"{_MAPPED}/{rank}" for rank in self._followers]
        self._keys.abortable(lambda: self._keys.wait(mapped, what, grace_s=0.0))


def follow(member: Member, transfer: int, plan: TransferPlan) -> tuple[PrivateMapping, str]:
    """The leader's copy once it is complete, and its digest. Raises WeightSyncError."""
    keys = _Keys(member, transfer)
    return keys.abortable(lambda: _follow(keys, member, plan))


def _follow(keys: _Keys, member: Member, plan: TransferPlan) -> tuple[PrivateMapping, str]:
    copy = f"the copy that receiver {member.leader} takes for this host"
    mapping = PrivateMapping(plan.blocks, keys.value(_PATH, copy))
    keys.set(f"{_MAPPED}/{member.rank}")
    for sender, buckets in enumerate(plan.streams):
        for number in range(len(buckets)):
            keys.wait([f"{sender}/{number}"], f"bucket {number} of learner rank {sender} in {copy}")
    return mapping, keys.value(_DIGEST, f"the digest of {copy}")


class _Keys:
    """Keys that the receivers of one host exchange in one transfer, in the store of their group."""

    def __init__(self, member: Member, transfer: int) -> None:
        self._rank, self._rendezvous = member.rank, member.rendezvous
        self._store = PrefixStore(f"copy/{member.leader}/{transfer}", member.store)
        self._signal = AbortSignal(member.watch)
        self._what, self._until = "", 0.0  # of the present wait
        self._ended = False  # nobody waits for the thread any more

    def abortable(self, call: Callable[[], T]) -> T:
        """`call()`, which ends with the group, and whose every `wait` has the deadline of a bucket."""
        self._until = time.monotonic() + self._rendezvous.timeout_s
        try:
            return abortable(call, until=lambda: self._until, signal=self._signal)
        except RuntimeError as e:
            limit_s = self._rendezvous.timeout_s
            raise self._failed(f"waited for {self._what}; sync.bucket_deadline_s={limit_s:g}", e) from e
        finally:
            self._ended = True

    def set(self, key: str, value: str = "") -> None:
        try:
            self._store.set(key, value)
        except RuntimeError as e:
            raise self._failed(f"wrote {key} for the receivers of this host", e) from e

    def value(self, key: str, what: str) -> str:
        self.wait([key], what)
        return bytes(self._store.get(key)).decode()

    def wait(self, keys: list[str], what: str, grace_s: float = _GRACE_S) -> None:
        limit_s = self._rendezvous.timeout_s + grace_s
        self._what, self._until = what, time.monotonic() + limit_s
        while True:
            try:
                self._store.wait(keys, _SLICE)
                return
            except DistStoreError:  # not there yet
                if self._ended or time.monotonic() >= self._until:
                    raise

    def _failed(self, what: str, error: RuntimeError) -> WeightSyncError:
        epoch = self._rendezvous.epoch
        return WeightSyncError(f"receiver {self._rank} of weight-sync group epoch {epoch} {what}: {error}")


def _offsets(blocks: Sequence[Bucket]) -> list[int]:
    """Of the blocks in a file, and the size of the file, at least 1."""
    offsets = [0]
    for block in blocks:
        offsets.append(offsets[-1] + -(-block.nbytes // _ALIGNED) * _ALIGNED)
    return [*offsets[:-1], max(1, offsets[-1])]
