"""One staged copy of the weights for all receivers of a host, in shared memory.

The rendezvous makes the first receiver of a host its leader, which alone is in the groups (transport/rendezvous.py):

    leader      makes a file, or takes one that nobody reads any more, and announces it; receives into it, and
                marks each bucket that has been kept; announces its digest; waits until every follower has mapped the
                file, then removes its name
    follower    opens and maps the file, waits for mark after mark, takes over the digest; announces when no tensor of
                its process uses the mapping any more

Announcements and marks are keys in the group's store. A follower's deadline is that of one bucket, from mark to mark,
as for a receiver in the group. If either end fails, the controller aborts the group, which ends all waits. A file has
a name only while it is first received, so a process that is killed later leaves nothing behind. Files are used again
because a new one costs more than what is received into it: the kernel clears and maps it in pages of 4 KiB.

Processes map the file privately to load from it: what a model changes in place stays its own. A loader of a
tensor-parallel shard touches only the rows that it takes.

Alternatives: every receiver in the group (gloo sends each copy through the learner's host or another receiver's);
memfd, which needs one process namespace; a digest of each follower, which would read the same pages again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch.distributed import DistStoreError, PrefixStore

from actors.shared_file import PrivateMapping, SharedFile
from actors.shm_cleanup import SHARED_MEMORY
from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import AbortSignal, abortable, in_thread
from r1ray.transport.plan import Bucket, TransferPlan
from r1ray.transport.rendezvous import Member

T = TypeVar("T")
_GRACE_S = 2.0
"""Lets the failure of a leader, which names what it waited for, pass before its followers'."""
_SLICE = timedelta(seconds=1)
"""Of a wait: a thread that was left behind ends after one."""
_PATHS, _DIGEST, _MAPPED = "paths", "digest", "mapped"
_FILES = 2
"""Files of a leader: a model on a CPU keeps views of what it was loaded from, until the next copy has been loaded."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


def memory_id(folder: Path = SHARED_MEMORY) -> str:
    """Identity of the shared memory that this process can exchange files in: of the running kernel, mount and user."""
    return f"{BOOT.read_text(encoding='ascii').strip()} {folder.stat().st_dev} {os.getuid()}"


@dataclass(slots=True)
class _Use:
    """The latest use of a leader's file."""

    file: SharedFile
    keys: _Keys
    view: weakref.ref[memoryview] | None = None  # the leader's own; None before all buckets were received


class LeaderCopy:
    """The files of a leader: a new one for a transfer unless an earlier one is no longer read by any process."""

    def __init__(self, member: Member, folder: Path) -> None:
        self._member, self._folder = member, folder
        self._uses: list[_Use] = []
        self._lock = threading.Lock()  # the group may be left while its thread begins a transfer
        self._left = False

    def begin(self, transfer: int, blocks: Sequence[Bucket]) -> LeaderTransfer:
        """The number of the transfer counts those of the group. Raises WeightSyncError if there is no room."""
        free = [use for use in self._uses if use.file.blocks == blocks and self._free(use)]
        with self._lock:
            if self._left:
                raise WeightSyncError("the weight-sync group was left while a transfer began")
            use = _Use(free[0].file if free else SharedFile(blocks, self._folder), _Keys(self._member, transfer))
            kept = [u for u in self._uses if u not in free][1 - _FILES :]
            for old in self._uses:
                if old not in kept and old.file is not use.file:
                    old.file.close()
            self._uses = [*kept, use]
        begun = LeaderTransfer(use, self._member)
        try:
            use.keys.set(_PATHS, "\n".join(str(u.file.path) for u in reversed(self._uses)))
        except WeightSyncError:
            begun.close()
            raise
        return begun

    def close(self) -> None:
        """Give all files up."""
        with self._lock:
            self._left = True
            for use in self._uses:
                use.file.close()

    def _free(self, use: _Use) -> bool:
        released = [_released(rank) for rank in self._member.followers]
        return use.view is not None and use.view() is None and use.keys.known(released)


class LeaderTransfer:
    """What a leader tells its followers in one transfer."""

    def __init__(self, use: _Use, member: Member) -> None:
        self._use, self._followers = use, member.followers
        self.file = use.file

    def kept(self, stream: int, number: int) -> None:
        """A bucket of a stream is in the file. Raises WeightSyncError, as the others do."""
        self._use.keys.set(f"{stream}/{number}")

    def finish(self, digest: str) -> PrivateMapping:
        """All buckets are; return the leader's own mapping when every follower has mapped the file."""
        keys = self._use.keys
        keys.set(_DIGEST, digest)
        what = f"receivers {list(self._followers)} of this host to map its copy"
        mapped = [f"{_MAPPED}/{rank}" for rank in self._followers]
        keys.abortable(lambda: keys.wait(mapped, what, grace_s=0.0))
        mapping = self.file.mapping()
        self._use.view = mapping.view
        return mapping

    def close(self) -> None:
        """The transfer has ended. A file of one that failed is not used again."""
        self.file.unlink()
        if self._use.view is None:
            self.file.close()


class FollowerCopy:
    """The files of a leader as one of its followers reads them."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._files: dict[str, int] = {}  # open, by the path that they had
        self._lock = threading.Lock()  # no number of a closed file reaches the system
        self._left = False

    def receive(self, transfer: int, plan: TransferPlan) -> tuple[PrivateMapping, str]:
        """The leader's copy once it is complete, and its digest. Raises WeightSyncError."""
        keys = _Keys(self._member, transfer)
        mapping, digest = keys.abortable(lambda: self._receive(keys, plan))
        # The leader may write into the file again once this process has no tensor of it. In a thread: the last tensor
        # may go while an engine works, and a store that does not answer belongs to a group that is at its end.
        released = partial(in_thread, partial(keys.tell, _released(self._member.rank)))
        view = mapping.view()
        assert view is not None
        weakref.finalize(view, released).atexit = False
        return mapping, digest

    def close(self) -> None:
        """Close the files. What is mapped stays."""
        with self._lock:
            self._left = True
            self._keep([])

    def _receive(self, keys: _Keys, plan: TransferPlan) -> tuple[PrivateMapping, str]:
        copy = f"the copy that receiver {self._member.leader} takes for this host"
        mapping = self._map(plan.blocks, keys.value(_PATHS, copy).split("\n"))
        keys.set(f"{_MAPPED}/{self._member.rank}")
        for sender, buckets in enumerate(plan.streams):
            for number in range(len(buckets)):
                keys.wait([f"{sender}/{number}"], f"bucket {number} of learner rank {sender} in {copy}")
        return mapping, keys.value(_DIGEST, f"the digest of {copy}")

    def _map(self, blocks: Sequence[Bucket], paths: Sequence[str]) -> PrivateMapping:
        """Map the first of the leader's files."""
        path = paths[0]
        with self._lock:
            if self._left:
                raise WeightSyncError("the weight-sync group was left while a transfer began")
            self._keep(paths)
            try:
                if path not in self._files:
                    self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as e:
                raise WeightSyncError(f"cannot map the staged weights of this host in {path}: {e.strerror}") from e
            return PrivateMapping(blocks, self._files[path])

    def _keep(self, paths: Sequence[str]) -> None:
        for path in self._files.keys() - set(paths):
            os.close(self._files.pop(path))


class _Keys:
    """Keys that the receivers of one host exchange in one transfer, in the store of their group."""

    def __init__(self, member: Member, transfer: int) -> None:
        self._rank, self._rendezvous = member.rank, member.rendezvous
        prefix = f"copy/{member.leader}/{transfer}"
        self._store, self._watch = PrefixStore(prefix, member.store), PrefixStore(prefix, member.watch)
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

    def known(self, keys: list[str]) -> bool:
        """Whether all keys are set. Raises WeightSyncError."""
        try:
            return bool(self._watch.check(keys))
        except RuntimeError as e:
            raise self._failed("looked which receivers of this host still read its copy", e) from e

    def tell(self, key: str) -> None:
        """Set a key, beside a `wait` of another thread. Raises RuntimeError."""
        self._watch.set(key, "")

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


def _released(rank: int) -> str:
    """Key of a follower that reads the file of a transfer no longer."""
    return f"released/{rank}"
