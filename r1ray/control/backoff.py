"""Exponential backoff between attempts, so that a retry budget is not spent within seconds."""

from __future__ import annotations

FIRST_S = 1.0
MOST_S = 60.0


class Backoff:
    """`now` is in seconds of any monotonic clock.

    Example: tried(0), tried(0), tried(1), tried(3): the second attempt is due at once, the next ones after 1, 2, 4, ...
    up to MOST_S seconds. `succeeded()` resets it.
    """

    def __init__(self) -> None:
        self._tries = 0
        self._next = float("-inf")

    def due(self, now: float) -> bool:
        """Whether the next attempt may be made."""
        return now >= self._next

    def tried(self, now: float) -> None:
        """An attempt was made."""
        pause = FIRST_S * 2.0 ** min(self._tries - 1, 16) if self._tries else 0.0
        self._tries += 1
        self._next = now + min(MOST_S, pause)

    def succeeded(self) -> None:
        """Reset: the next failure is the first."""
        self._tries, self._next = 0, float("-inf")
