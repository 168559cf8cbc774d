"""Weight transfer between GPUs: NCCL if sender and receivers have a GPU each, CUDA IPC if they share one.

NCCL does not allow two ranks on one device. With IPC the sender publishes the handle of its bucket in the store (plain
bytes and numbers, nothing pickled); the receivers copy the bucket and acknowledge it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import msgpack
import torch
from torch.distributed import Store

from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import AbortSignal, abortable, wait_completed
from r1ray.transport.channel import Channel, Pending, Place, Rendezvous

_WATCHDOG_S = 60.0
_WITHOUT_WATCHDOG = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "TORCH_NCCL_ENABLE_MONITORING": "0"}
"""Read by a group when it is made. NCCL's watchdog ends the whole process at an error of a peer: a learner rank would
die with a rollout worker. Our own deadlines end the operations; DeepSpeed's groups keep their watchdogs.
"""


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of this process for as long as the context lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class CudaChannel(Channel):
    """One end of an NCCL or IPC group on one device."""

    def __init__(
        self, store: Store, watch: Store, rendezvous: Rendezvous, place: Place, *, device: torch.device
    ) -> None:
        """`watch`: to look for an abort, see `AbortSignal`. `device` is that of this process's weights: torch's current
        device is per thread, and 0 in a new one.
        """
        self._rendezvous = rendezvous
        self._rank, self._size = place.rank, place.size
        self._store = store
        self._signal = AbortSignal(watch)
        self._sent = 0
        self._device = device
        self._group = self._nccl_group() if rendezvous.transport == "nccl" else None
        self._formed = False  # whether the NCCL group has its communicator

    def _nccl_group(self) -> Any:
        from torch.distributed import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        # Later than our deadline: at its own timeout NCCL's watchdog would end the whole process.
        options._timeout = timedelta(seconds=2 * self._rendezvous.timeout_s + _WATCHDOG_S)
        with _environment(_WITHOUT_WATCHDOG):
            return ProcessGroupNCCL(self._store, self._rank, self._size, options)

    def buffer(self, nbytes: int) -> torch.Tensor:
        """Device memory to send from or receive into, uint8 [nbytes]."""
        return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def memory(self, nbytes: int) -> torch.Tensor:
        """Pinned host memory: staged weights must not take device memory from the KV cache."""
        with torch.cuda.device(self._device):  # pinned memory belongs to a device's context
            return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def start(self, buffer: torch.Tensor) -> Pending:
        """As in `Channel`. It fails at the bucket's deadline, or once the group is aborted.

        An NCCL group is then aborted here too, without waiting for its operations.
        """
        until = time.monotonic() + self._rendezvous.timeout_s
        self._signal.start()
        with self._failures(buffer.numel()):
            if self._group is not None:
                work = self._begin(self._group, buffer, until)
                # Not the work's own `wait`: that would only queue on the GPU behind it and return at once.
                finish = partial(wait_completed, work, until=until, signal=self._signal)
            elif self._rank == 0:
                finish = partial(self._wait_for, self._offer(buffer), until)
            else:
                finish = partial(self._fetch, buffer, until)
        return _Broadcast(self, buffer.numel(), finish)

    @contextmanager
    def _failures(self, nbytes: int) -> Iterator[None]:
        try:
            yield
        except RuntimeError as e:
            self.close()
            raise WeightSyncError(
                f"broadcast of {nbytes} bytes over {self._rendezvous.transport} failed in epoch "
                f"{self._rendezvous.epoch}, the group was aborted, a peer died, or sync.bucket_deadline_s="
                f"{self._rendezvous.timeout_s:g} passed: {e}"
            ) from e

    def _begin(self, group: Any, buffer: torch.Tensor, until: float) -> Any:
        """Start a broadcast. The first one creates the communicator; NCCL waits for every member inside that call."""
        if self._formed:
            return group.broadcast(buffer, 0)
        stream = torch.cuda.current_stream(self._device)

        def first() -> Any:
            with torch.cuda.device(self._device), torch.cuda.stream(stream):  # both belong to a thread
                return group.broadcast(buffer, 0)

        missing = "not every member joined the NCCL communicator in time"
        work = abortable(first, until=until, signal=self._signal, otherwise=missing)
        self._formed = True
        return work

    def _offer(self, buffer: torch.Tensor) -> list[str]:
        """Publish the handle of `buffer`; returns the keys by which its receivers acknowledge it."""
        torch.cuda.current_stream(self._device).synchronize()
        handle = buffer.untyped_storage()._share_cuda_()
        key, self._sent = f"bucket/{self._sent}", self._sent + 1
        self._store.set(key, msgpack.packb([*handle, buffer.storage_offset(), buffer.numel()]))
        return [f"{key}/taken/{r}" for r in range(1, self._size)]

    def _fetch(self, buffer: torch.Tensor, until: float) -> None:
        key, self._sent = f"bucket/{self._sent}", self._sent + 1
        self._wait_for([key], until)
        *handle, offset, numel = msgpack.unpackb(self._store.get(key))
        storage = torch.UntypedStorage._new_shared_cuda(*handle)
        shared = torch.empty(0, dtype=torch.uint8, device=self._device).set_(storage, offset, (numel,))
        buffer.copy_(shared)
        torch.cuda.current_stream(self._device).synchronize()
        self._store.set(f"{key}/taken/{self._rank}", b"1")

    def _wait_for(self, keys: list[str], until: float) -> None:
        timeout = timedelta(seconds=self._rendezvous.timeout_s)
        abortable(lambda: self._store.wait(keys, timeout), until=until, signal=self._signal)

    def close(self) -> None:
        """Leave the group; an NCCL group is aborted."""
        if self._group is not None:
            self._group.abort()
            self._group = None


@dataclass(frozen=True, slots=True)
class _Broadcast(Pending):
    channel: CudaChannel
    nbytes: int
    finish: Callable[[], None]

    def wait(self) -> None:
        with self.channel._failures(self.nbytes):
            self.finish()
