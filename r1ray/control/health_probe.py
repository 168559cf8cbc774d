"""Health checks of one process: one request at a time, whose outcome updates its `Health`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from r1ray.control.health import Health

R = TypeVar("R")
INTERVAL_S = 1.0
"""From an answer to the next request."""


class HealthProbe(Generic[R]):
    """`request()` starts a health check; its result is the answer. Never blocks."""

    def __init__(self, request: Callable[[], Future[R]], health: Health) -> None:
        self._request = request
        self._health = health
        self._pending: Future[R] | None = None
        self._next = float("-inf")

    def poll(self, now: float) -> R | None:
        """Send a request if due, and return the answer if it has arrived. A failed request marks the process dead."""
        if self._pending is None:
            if now >= self._next:
                self._pending = self._request()
                self._health.request_sent(now)
            return None
        if not self._pending.done():
            self._health.request_sent(now)  # again: a weight sync in between counted as the answer
            return None
        answer, self._pending, self._next = self._pending, None, now + INTERVAL_S
        error = answer.exception()
        if error is not None:
            self._health.died(str(error))
            return None
        self._health.answered()
        return answer.result()
