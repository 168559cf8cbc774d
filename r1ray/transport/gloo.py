"""A private gloo group of one sender (rank 0) and the receivers of one epoch.

Store and context are its own, so it exists beside vLLM's and DeepSpeed's groups and can be discarded. A group whose
peer died is never repaired: the next epoch forms a new one on a new port.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import ProcessGroupGloo, Store

from r1ray.errors import WeightSyncError
from r1ray.transport.abortable import AbortSignal, wait_completed
from r1ray.transport.channel import Rendezvous

_GRACE_S = 1.0
"""Lets gloo's own timeout, which names the peer, pass before ours."""
_PARKED: list[Any] = []
"""Groups that failed. Destroying one during a pending operation blocks until that times out, so they are kept."""


class GlooChannel:
    """One end of the group."""

    def __init__(
        self, store: Store, rendezvous: Rendezvous, *, rank: int, interface: str | None, host: str | None
    ) -> None:
        self._rendezvous = rendezvous
        self._rank = rank
        options = ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=rendezvous.timeout_s)
        if interface is not None:
            device = ProcessGroupGloo.create_device(interface=interface)
        elif host is not None:
            device = ProcessGroupGloo.create_device(hostname=host)
        else:
            device = ProcessGroupGloo.create_default_device()
        options._devices = [device]
        try:
            self._group = ProcessGroupGloo(store, rank, rendezvous.world_size, options)
            self._signal = AbortSignal(store)
        except RuntimeError as e:
            raise WeightSyncError(f"weight-sync group {self._name()} did not form: {e}") from e
        self._store = store

    def buffer(self, nbytes: int) -> torch.Tensor:
        """Host memory to send from or receive into, uint8 [nbytes]. Fresh: a loaded model may keep views of it."""
        return torch.empty(nbytes, dtype=torch.uint8)

    def broadcast(self, buffer: torch.Tensor) -> None:
        """Send `buffer` from rank 0 into the `buffer` of all others.

        Raises WeightSyncError at the bucket's deadline, or once the controller has aborted the group.
        """
        limit_s = self._rendezvous.timeout_s
        try:
            self._signal.start()
            work = self._group.broadcast(buffer, 0)  # holds `buffer` until it ends
            wait_completed(work, until=time.monotonic() + limit_s + _GRACE_S, signal=self._signal)
        except RuntimeError as e:
            _PARKED.append(self._group)
            raise WeightSyncError(
                f"broadcast of {buffer.numel()} bytes in weight-sync group {self._name()} failed, the group was "
                f"aborted, a peer died, or it took longer than sync.bucket_deadline_s={limit_s:g}: {e}"
            ) from e

    def stage(self, buffer: torch.Tensor) -> torch.Tensor:
        """`buffer` itself, which is host memory."""
        return buffer

    def close(self) -> None:
        """Leave the group. No operation is pending, so this does not block."""
        del self._group

    def _name(self) -> str:
        r = self._rendezvous
        return f"epoch {r.epoch} (rank {self._rank} of {r.world_size}, {r.address}:{r.port})"
