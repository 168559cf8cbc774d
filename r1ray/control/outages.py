"""Retry through outages that end without intervention: a full disk, or a queue actor that Ray restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, TypeVar

from r1ray.control.calls import await_one, pause
from r1ray.control.handles import Handle, QueueApi
from r1ray.errors import InfrastructureError, RetryBudgetExhausted

Params = ParamSpec("Params")
R = TypeVar("R")
RETRY_S = 1.0


class OutageTracker:
    """`on_pause(reason)` is called when an outage pauses the run, `on_pause(None)` when the last one is over."""

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
        self._since: dict[str, float] = {}  # operation that fails -> time of its first failure

    def budgets(self) -> dict[str, float]:
        """Used share of the time that the longest outage may last."""
        longest_s = max((self._clock() - since for since in self._since.values()), default=0.0)
        return {"recovery.outage_timeout_s": longest_s / self._limit_s}

    def retry_until_recovered(self, what: str, action: Callable[[], R], *failures: type[InfrastructureError]) -> R:
        """`action()`, repeated while it raises one of `failures`.

        Raises RetryBudgetExhausted after `recovery.outage_timeout_s`, and every other error of `action` at once.
        """
        while True:
            try:
                result = action()
            except failures as e:
                self._failed(what, e)
                pause(RETRY_S, self._tick)
            except BaseException:  # not an outage
                self._recovered(what)
                raise
            else:
                self._recovered(what)
                return result

    def report_external(self, who: str, problem: str | None) -> None:
        """Record that `who` retries by itself because of `problem` (None: it has recovered); the run pauses with it.

        Raises RetryBudgetExhausted as `retry_until_recovered` does.
        """
        if problem is None:
            self._recovered(who)
        else:
            self._failed(who, problem)

    def _failed(self, what: str, failure: Exception | str) -> None:
        now = self._clock()
        if not self._since:
            self._on_pause(f"{what}: {failure}; the run continues once this succeeds")
        if now - self._since.setdefault(what, now) >= self._limit_s:
            raise RetryBudgetExhausted(
                f"{what} failed for {self._limit_s:g} s (recovery.outage_timeout_s); the last error: {failure}"
            )

    def _recovered(self, what: str) -> None:
        if self._since.pop(what, None) is not None and not self._since:
            self._on_pause(None)


class QueueClient:
    """Blocking calls of the queue actor, retried through outages; every method of the queue may be repeated safely."""

    def __init__(
        self, queue: Handle[QueueApi], *, deadline_s: float, outages: OutageTracker, tick: Callable[[], None]
    ) -> None:
        self.handle = queue
        self._deadline_s = deadline_s
        self._outages = outages
        self._tick = tick

    def call(
        self,
        method: Callable[Concatenate[QueueApi, Params], Coroutine[Any, Any, R]],
        *args: Params.args,
        **kwargs: Params.kwargs,
    ) -> R:
        """The result of `method`. Raises RetryBudgetExhausted, and what the ledger refuses (IntegrityError)."""
        what = f"the ledger's {method.__name__}"

        def call() -> R:
            future: Future[R] = self.handle.start(method, *args, **kwargs)
            deadline = f"{what} (deadlines.rpc_s)"
            return await_one(self.handle.name, future, deadline_s=self._deadline_s, what=deadline, tick=self._tick)

        return self._outages.retry_until_recovered(what, call, InfrastructureError)
