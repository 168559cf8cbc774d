"""Waits out what passes by itself: a disk that is full for now, a queue actor that Ray restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from r1ray.control.calls import Remote, call_one, pause
from r1ray.errors import BudgetSpent, InfrastructureError

T = TypeVar("T")
RETRY_S = 1.0


class Outages:
    """`on_pause(what)` hears that the run stands still for `what`, `on_pause(None)` that it goes on."""

    def __init__(
        self,
        limit_s: float,
        *,
        tick: Callable[[], None],
        on_pause: Callable[[str | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._tick = tick
        self._on_pause = on_pause
        self._clock = clock

    def wait_out(self, what: str, action: Callable[[], T], *failures: type[InfrastructureError]) -> T:
        """`action()`, repeated while it raises one of `failures`. Raises BudgetSpent after `recovery.outage_s`."""
        until: float | None = None
        while True:
            try:
                result = action()
            except failures as e:
                if until is None:
                    until = self._clock() + self._limit_s
                    self._on_pause(f"{what}: {e}")
                if self._clock() >= until:
                    raise BudgetSpent(
                        f"{what} failed for recovery.outage_s={self._limit_s:g}; the last time: {e}"
                    ) from e
                pause(RETRY_S, self._tick)
            else:
                if until is not None:
                    self._on_pause(None)
                return result


class QueueClient:
    """The queue actor as the controller calls it; every call may be repeated without harm."""

    def __init__(self, queue: Remote, *, deadline_s: float, outages: Outages, tick: Callable[[], None]) -> None:
        self.remote = queue
        self._deadline_s = deadline_s
        self._outages = outages
        self._tick = tick

    def ask(self, method: str, *args: Any) -> Any:
        """The answer; outages are waited out. Raises BudgetSpent, and what the ledger refuses (IntegrityError)."""
        what = f"the ledger to {method.replace('_', ' ')}"

        def call() -> Any:
            deadline = f"{what} (deadlines.rpc_s)"
            return call_one(self.remote, method, *args, deadline_s=self._deadline_s, what=deadline, tick=self._tick)

        return self._outages.wait_out(what, call, InfrastructureError)
