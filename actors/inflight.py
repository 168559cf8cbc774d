"""Weight transfers during generation, one at a time: received in a thread, applied between two engine steps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from actors.engine import GenerationEngine
from r1ray.errors import WeightSyncError
from r1ray.transport.channel import Rendezvous
from r1ray.transport.transfer import Applied, WeightLayout

Group = tuple[Rendezvous, int, str | None]
"""The rendezvous, the worker's first rank, and this host's address."""


@dataclass(frozen=True, slots=True)
class _Transfer:
    version: int
    result: Future[Applied]


class InflightWeights:
    """Call every method but `fail` on the thread that steps the engine."""

    def __init__(self, engine: GenerationEngine, worker_id: str, serving: Callable[[int], None]) -> None:
        """Calls `serving(version)` as soon as the engine serves a policy."""
        self._engine = engine
        self._id = worker_id
        self._serving = serving
        self._transfer: _Transfer | None = None

    @property
    def receiving(self) -> bool:
        """Whether a transfer is in progress."""
        return self._transfer is not None

    def begin(self, version: int, group: Group | None, layout: WeightLayout, bucket_bytes: int) -> Future[Applied]:
        """Enter `group` if given and start to receive. Raises WeightSyncError while another transfer is in progress."""
        if self._transfer is not None:
            raise WeightSyncError(f"{self._id} is still receiving policy {self._transfer.version}")
        if group is not None:
            self._engine.enter_group(*group)
        self._engine.begin_receive(layout, bucket_bytes)
        self._transfer = _Transfer(version, Future())
        return self._transfer.result

    def try_apply(self) -> None:
        """Apply a transfer that is complete. If it failed, the old policy stays and the transfer's future raises."""
        if (transfer := self._transfer) is None:
            return
        try:
            applied = self._engine.try_apply(transfer.version)
        except WeightSyncError as e:
            self._transfer = None
            transfer.result.set_exception(e)
            return
        if applied is not None:
            self._transfer = None
            self._serving(transfer.version)
            transfer.result.set_result(applied)

    def fail(self, error: BaseException) -> None:
        """The worker has ended: make the future of a pending transfer raise `error`."""
        if self._transfer is not None and not self._transfer.result.done():
            self._transfer.result.set_exception(error)
