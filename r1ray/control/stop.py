"""The end of a run before its last step: asked for by a signal, due after a grace."""

from __future__ import annotations

import time
from collections.abc import Callable

EXIT_SHARE = 0.2
"""Of the grace, for ending processes and writing the last records."""


class Interrupted(Exception):
    """The run ends now, as asked for. Not an error: everything since the last checkpoint is repeated on a resume."""


class Stop:
    """`request` may be called from a signal handler."""

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._until: float | None = None
        self.reason = ""

    @property
    def requested(self) -> bool:
        return self._until is not None

    def request(self, reason: str) -> None:
        """End the run soon; the first request counts."""
        if self._until is None:
            self.reason = reason
            self._until = self._clock() + self._grace_s * (1 - EXIT_SHARE)

    def check(self, *, unsaved: bool) -> None:
        """Raises Interrupted where there is nothing to wait for or no time left."""
        if self._until is None:
            return
        if not unsaved:
            raise Interrupted(self.reason)
        if self._clock() >= self._until:
            raise Interrupted(
                f"{self.reason}; deadlines.shutdown_s={self._grace_s:g} was over before a checkpoint was whole, "
                "so the steps since the last one are trained again"
            )
