"""The requested end of a run before its last step: gracefully within a time limit, or at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

EXIT_SHARE = 0.2
"""Share of the grace period for ending processes and writing the last records."""


class RunInterruptedError(Exception):
    """The run ends now, as requested. Not an error: a resume repeats everything since the last checkpoint."""


class Stop:
    """`request` may be called from a signal handler."""

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace_s = grace_s
        self._clock = clock
        self._requests = itertools.count()  # a single call of C, so a signal cannot arrive in the middle of it
        self._until: float | None = None
        self._at_once = False
        self.reason = ""

    @property
    def grace_s(self) -> float:
        """Seconds from the request to the end of the process at the latest."""
        return self._grace_s

    @property
    def requested(self) -> bool:
        """Whether the run is to end soon."""
        return self._until is not None

    def request(self, reason: str) -> bool:
        """End the run soon; its reason is that of the first request. Returns whether this is the first."""
        if next(self._requests) > 0:
            return False
        self.reason = reason
        self._until = self._clock() + self._grace_s * (1 - EXIT_SHARE)
        return True

    def at_once(self) -> None:
        """End the run at the next `check`, without a checkpoint.

        For a signal handler that raises KeyboardInterrupt too: Python drops exceptions in finalisers and callbacks.
        """
        self._at_once = True

    def check(self, *, unsaved: bool) -> None:
        """Raises RunInterruptedError if nothing is unsaved or the grace is over, KeyboardInterrupt after `at_once`."""
        if self._at_once:
            raise KeyboardInterrupt
        if self._until is None:
            return
        if not unsaved:
            raise RunInterruptedError(self.reason)
        if self._clock() >= self._until:
            raise RunInterruptedError(
                f"{self.reason}; deadlines.shutdown_s={self._grace_s:g} passed before a checkpoint was complete, "
                "so a resume repeats the steps since the last one"
            )
