"""Asks one process, again and again, how it is, and tells its health what came of it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from r1ray.control.calls import Remote
from r1ray.control.health import Health

EVERY_S = 1.0
"""From an answer to the next question."""


class Pulse:
    """One question at a time, never waited for."""

    def __init__(self, remote: Remote, method: str, health: Health) -> None:
        self._remote = remote
        self._method = method
        self._health = health
        self._open: Future[Any] | None = None
        self._next = float("-inf")

    def beat(self, now: float) -> Any | None:
        """Ask where it is time to; the answer where one has come. An error instead of one is the end of the process."""
        if self._open is None:
            if now >= self._next:
                self._open = self._remote.call(self._method)
                self._health.asked(now)
            return None
        if not self._open.done():
            self._health.asked(now)  # again, since a weight sync in between has answered the question before
            return None
        answer, self._open, self._next = self._open, None, now + EVERY_S
        error = answer.exception()
        if error is not None:
            self._health.died(str(error))
            return None
        self._health.heard()
        return answer.result()
