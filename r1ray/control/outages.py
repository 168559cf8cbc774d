"""Waits out what passes by itself: a disk that is full for now, a queue actor that Ray restarts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from r1ray.control.calls import Remote, call_one, pause
from r1ray.errors import InfrastructureError, RetryBudgetExhausted

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
        self._since: dict[str, float] = {}  # what the run stands still for, and since when

    def retry_until_recovered(self, what: str, action: Callable[[], T], *failures: type[InfrastructureError]) -> T:
        """`action()`, repeated while it raises one of `failures`. Raises RetryBudgetExhausted after `recovery.outage_s`."""
        while True:
            try:
                result = action()
            except failures as e:
                self._failed(what, e)
                pause(RETRY_S, self._tick)
            except BaseException:  # another failure, and another's business
                self._passed(what)
                raise
            else:
                self._passed(what)
                return result

    def report_external(self, who: str, trouble: str | None) -> None:
        """Record that `who` retries by itself because of `trouble` (None: it has recovered); the run pauses with it.

        Raises RetryBudgetExhausted as `retry_until_recovered` does.
        """
        if trouble is None:
            self._passed(who)
        else:
            self._failed(who, trouble)

    def _failed(self, what: str, failure: Exception | str) -> None:
        now = self._clock()
        if not self._since:
            self._on_pause(f"{what}: {failure}; it goes on by itself once that has passed")
        if now - self._since.setdefault(what, now) >= self._limit_s:
            raise RetryBudgetExhausted(
                f"{what} failed for recovery.outage_s={self._limit_s:g}; the last time: {failure}"
            )

    def _passed(self, what: str) -> None:
        if self._since.pop(what, None) is not None and not self._since:
            self._on_pause(None)


class QueueClient:
    """The queue actor as the controller calls it; every call may be repeated without harm."""

    def __init__(self, queue: Remote, *, deadline_s: float, outages: Outages, tick: Callable[[], None]) -> None:
        self.remote = queue
        self._deadline_s = deadline_s
        self._outages = outages
        self._tick = tick

    def ask(self, method: str, *args: Any) -> Any:
        """The answer; outages are waited out. Raises RetryBudgetExhausted, and what the ledger refuses (IntegrityError)."""
        what = f"the ledger to {method.replace('_', ' ')}"

        def call() -> Any:
            deadline = f"{what} (deadlines.rpc_s)"
            return call_one(self.remote, method, *args, deadline_s=self._deadline_s, what=deadline, tick=self._tick)

        return self._outages.retry_until_recovered(what, call, InfrastructureError)
