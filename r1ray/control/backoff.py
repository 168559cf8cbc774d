"""Growing pauses between attempts at something that keeps failing, so that their budget is not spent within seconds."""

from __future__ import annotations

FIRST_S = 1.0
MOST_S = 60.0


class Backoff:
    """Knows no clock: `now` is in seconds of any that only grows.

    Example: tried(0), tried(0), tried(1), tried(3): the second attempt is due at once, the next ones after 1, 2, 4, ...
    and at last MOST_S seconds. `succeeded()` begins anew.
    """

    def __init__(self) -> None:
        self._tries = 0
        self._next = float("-inf")

    def due(self, now: float) -> bool:
        return now >= self._next

    def tried(self, now: float) -> None:
        """An attempt was made."""
        pause = FIRST_S * 2.0 ** min(self._tries - 1, 16) if self._tries else 0.0
        self._tries += 1
        self._next = now + min(MOST_S, pause)

    def succeeded(self) -> None:
        self._tries, self._next = 0, float("-inf")
