"""Weight transfer between GPUs: NCCL where sender and receivers have a GPU each, CUDA IPC where they share one.

NCCL cannot have two ranks on one device, which is what IPC is for: the sender
publishes the handle of its bucket in the store (plain bytes and numbers, nothing pickled), receivers copy and acknowledge.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

import msgpack
import torch
from torch.distributed import Store

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Rendezvous

T = TypeVar("T")
_POLL_S = 0.001
_WATCHDOG_S = 60.0


class CudaChannel:
    """One end of an NCCL or IPC group on this process's current device."""

    def __init__(self, store: Store, rendezvous: Rendezvous, *, rank: int) -> None:
        self._rendezvous = rendezvous
        self._rank = rank
        self._store = store
        self._sent = 0
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._group = self._nccl_group() if rendezvous.transport == "nccl" else None
        self._formed = False  # whether that has its communicator

    def _nccl_group(self) -> Any:
        from torch.distributed import ProcessGroupNCCL

        options = ProcessGroupNCCL.Options()
        # Later than ours: at its own time-out NCCL's watchdog would end the whole process.
        options._timeout = timedelta(seconds=2 * self._rendezvous.timeout_s + _WATCHDOG_S)
        return ProcessGroupNCCL(self._store, self._rank, self._rendezvous.world_size, options)

    def buffer(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def stage(self, buffer: torch.Tensor) -> torch.Tensor:
        """A copy in pinned host memory: what waits to be applied must not take device memory from the KV cache."""
        return torch.empty(buffer.shape, dtype=buffer.dtype, pin_memory=True).copy_(buffer)

    def broadcast(self, buffer: torch.Tensor) -> None:
        """As in `Channel`. Raises WeightSyncError at the bucket's deadline; an NCCL group is aborted, not waited for."""
        try:
            if self._group is not None:
                until = time.monotonic() + self._rendezvous.timeout_s
                self._await(self._begin(self._group, buffer, until), until)
            elif self._rank == 0:
                self._offer(buffer)
            else:
                self._fetch(buffer)
        except RuntimeError as e:
            self.close()
            raise WeightSyncError(
                f"broadcast of {buffer.numel()} bytes over {self._rendezvous.transport} failed in epoch "
                f"{self._rendezvous.epoch}, a peer died or sync.bucket_deadline_s="
                f"{self._rendezvous.timeout_s:g} passed: {e}"
            ) from e

    def _begin(self, group: Any, buffer: torch.Tensor, until: float) -> Any:
        """Start a broadcast. The first one makes the communicator, for which NCCL waits for every member inside of the call."""
        if self._formed:
            return group.broadcast(buffer, 0)
        stream = torch.cuda.current_stream(self._device)

        def first() -> Any:
            with torch.cuda.device(self._device), torch.cuda.stream(stream):  # both are a thread's own
                return group.broadcast(buffer, 0)

        work = within(until - time.monotonic(), first, "not every member came into the NCCL communicator in time")
        self._formed = True
        return work

    def _await(self, work: Any, until: float) -> None:
        """Until the GPU is done with it. `wait` alone would only queue that behind the work, and return at once."""
        while not work.is_completed():
            if time.monotonic() >= until:
                raise RuntimeError("the deadline has passed")
            time.sleep(_POLL_S)
        work.wait()  # raises what went wrong

    def _offer(self, buffer: torch.Tensor) -> None:
        torch.cuda.current_stream().synchronize()
        handle = buffer.untyped_storage()._share_cuda_()
        key, self._sent = f"bucket/{self._sent}", self._sent + 1
        self._store.set(key, msgpack.packb([*handle, buffer.storage_offset(), buffer.numel()]))
        self._store.wait(
            [f"{key}/taken/{r}" for r in range(1, self._rendezvous.world_size)],
            timedelta(seconds=self._rendezvous.timeout_s),
        )

    def _fetch(self, buffer: torch.Tensor) -> None:
        key, self._sent = f"bucket/{self._sent}", self._sent + 1
        self._store.wait([key], timedelta(seconds=self._rendezvous.timeout_s))
        *handle, offset, numel = msgpack.unpackb(self._store.get(key))
        storage = torch.UntypedStorage._new_shared_cuda(*handle)
        shared = torch.empty(0, dtype=torch.uint8, device=self._device).set_(storage, offset, (numel,))
        buffer.copy_(shared)
        torch.cuda.current_stream().synchronize()
        self._store.set(f"{key}/taken/{self._rank}", b"1")

    def close(self) -> None:
        if self._group is not None:
            self._group.abort()
            self._group = None


def within(timeout_s: float, call: Callable[[], T], otherwise: str) -> T:
    """`call()`, made in a thread that is left behind where it takes longer. Raises RuntimeError(`otherwise`) then."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as e:  # raised again where the result is asked for
            done.set_exception(e)

    threading.Thread(target=run, name="within-deadline", daemon=True).start()
    try:
        return done.result(max(0.0, timeout_s))
    except TimeoutError:
        if done.done():  # the call's own
            raise
        raise RuntimeError(otherwise) from None
