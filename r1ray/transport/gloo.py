"""A private gloo group of one sender (its rank 0) and the receivers of one epoch.

Store and context are its own, so it exists beside vLLM's and DeepSpeed's groups and can be discarded. A group whose
peer died is never repaired: the next epoch forms a new one on a new port.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch.distributed import PrefixStore, ProcessGroupGloo, Store, Work

from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import LOOK_S, AbortSignal, abortable, wait_completed
from r1ray.transport.channel import Channel, Pending, Place, Rendezvous
from r1ray.transport.memory import KeptMemory, host_memory

_GRACE_S = 1.0
"""Lets gloo's own timeout, which names the peer, pass before ours."""
_PAUSE = timedelta(seconds=LOOK_S)
"""Between two looks for an abort; the end of a broadcast ends it."""
_PARKED: list[Any] = []
"""Groups that were left during a broadcast. Destroying one then blocks until that times out, so they are kept."""


class GlooChannel(Channel):
    """One end of the group."""

    def __init__(
        self,
        store: Store,
        watch: Store,
        rendezvous: Rendezvous,
        place: Place,
        *,
        interface: str | None,
        host: str | None,
    ) -> None:
        """`watch`: to look for an abort, see `AbortSignal`."""
        self._rendezvous = rendezvous
        self._place = place
        options = ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=rendezvous.timeout_s)
        if interface is not None:
            device = ProcessGroupGloo.create_device(interface=interface)
        elif host is not None:
            device = ProcessGroupGloo.create_device(hostname=host)
        else:
            device = ProcessGroupGloo.create_default_device()
        options._devices = [device]
        self._signal = AbortSignal(watch)
        own = PrefixStore(f"stream/{place.stream}", store)
        form = partial(ProcessGroupGloo, own, place.rank, place.size, options)  # waits for all members
        until = time.monotonic() + rendezvous.timeout_s + _GRACE_S
        try:
            self._group: Any = abortable(form, until=until, signal=self._signal)
        except RuntimeError as e:
            raise WeightSyncError(f"weight-sync group {self._name()} did not form: {e}") from e
        self._kept = KeptMemory()
        self._work: Work | None = None  # the present broadcast, or the last one

    def buffer(self, nbytes: int) -> torch.Tensor:
        """Host memory to send from or receive into, uint8 [nbytes]."""
        return host_memory(nbytes)

    def start(self, buffer: torch.Tensor) -> Pending:
        """As in `Channel`. It fails at the bucket's deadline, or once the controller has aborted the group."""
        until = time.monotonic() + self._rendezvous.timeout_s + _GRACE_S
        self._signal.start()
        with self._failures(buffer.numel()):
            self._work = self._group.broadcast(buffer, 0)  # holds `buffer` until it ends
        return _Broadcast(self, self._work, buffer.numel(), until)

    @contextmanager
    def _failures(self, nbytes: int) -> Iterator[None]:
        limit_s = self._rendezvous.timeout_s
        try:
            yield
        except RuntimeError as e:
            self.close()
            raise WeightSyncError(
                f"broadcast of {nbytes} bytes in weight-sync group {self._name()} failed, the group was "
                f"aborted, a peer died, or it took longer than sync.bucket_deadline_s={limit_s:g}: {e}"
            ) from e

    def memory(self, nbytes: int) -> torch.Tensor:
        """As in `Channel`."""
        return self._kept.lend(nbytes)

    def close(self) -> None:
        """Leave the group, without waiting for a broadcast."""
        if self._work is not None and not self._work.is_completed():
            _PARKED.append(self._group)
        self._group = None

    def _name(self) -> str:
        r = self._rendezvous
        p = self._place
        return f"epoch {r.epoch} (sender {p.stream}, rank {p.rank} of {p.size}, {r.address}:{r.port})"


@dataclass(frozen=True, slots=True)
class _Broadcast(Pending):
    channel: GlooChannel
    work: Work
    nbytes: int
    until: float

    def wait(self) -> None:
        with self.channel._failures(self.nbytes):
            wait_completed(self.work, until=self.until, signal=self.channel._signal, pause=self._pause)

    def _pause(self) -> None:
        with suppress(RuntimeError):  # it has not ended yet, or its error is raised at the end of the wait
            self.work.wait(_PAUSE)
