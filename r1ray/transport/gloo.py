"""A private gloo group of one sender (rank 0) and the receivers of one epoch.

Nothing global is touched: own store, own context, so that it lives beside vLLM's and DeepSpeed's groups and can be
thrown away. A group whose peer died is never repaired: the next epoch forms a new one on a new port.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch.distributed import ProcessGroupGloo, Store

from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Rendezvous

_PARKED: list[Any] = []
"""Groups that failed. Destroying one while an operation is pending blocks for its whole time-out, so they are kept."""


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
        except RuntimeError as e:
            raise WeightSyncError(f"weight-sync group {self._name()} did not form: {e}") from e
        self._store = store

    def buffer(self, nbytes: int) -> torch.Tensor:
        """Host memory to send from or receive into, uint8 [nbytes]. Fresh: a loaded model may keep views of it."""
        return torch.empty(nbytes, dtype=torch.uint8)

    def broadcast(self, buffer: torch.Tensor) -> None:
        """Send `buffer` from rank 0 into the `buffer` of all others. Raises WeightSyncError at the bucket's deadline."""
        try:
            self._group.broadcast(buffer, 0).wait()
        except RuntimeError as e:
            _PARKED.append(self._group)
            raise WeightSyncError(
                f"broadcast of {buffer.numel()} bytes in weight-sync group {self._name()} failed, a peer died or took longer "
                f"than sync.bucket_deadline_s={self._rendezvous.timeout_s:g}: {e}"
            ) from e

    def stage(self, buffer: torch.Tensor) -> torch.Tensor:
        return buffer

    def close(self) -> None:
        """Leave the group. Pending operations were waited for, so this does not block."""
        del self._group

    def _name(self) -> str:
        r = self._rendezvous
        return f"epoch {r.epoch} (rank {self._rank} of {r.world_size}, {r.address}:{r.port})"
