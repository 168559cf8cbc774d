"""Stall watchdog: nothing has failed, but there was no token, score or step for recovery.stall_timeout_s."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum


class Stage(Enum):
    """What the controller waits for. The value names the processes to examine if it takes too long."""

    BATCH = "rollout and reward workers"
    EVALUATION = "rollout workers"
    STEP = "learner"
    SYNC = "learner and rollout workers"
    DEADLINE = ""  # starts, checkpoints, exports: counters may stand still, and each has its own deadline


class Watchdog:
    """`look` returns for how long nothing has moved, once that is `stall_timeout_s` or more.

    Example with stall_timeout_s=10: look((5, 2, 1)) at 0 s -> None, the same at 11 s -> 11.0; reported(); the same at
    15 s -> None, at 22 s -> 22.0; look((6, 2, 1)) -> None.
    """

    def __init__(self, stall_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_timeout_s
        self._clock = clock
        self._marks: tuple[float, ...] = ()
        self._moved = clock()
        self._reported = self._moved
        self.still_s = 0.0
        """For how long nothing had moved at the last look."""

    def look(self, marks: tuple[float, ...], stage: Stage) -> float | None:
        """`marks` are counters of tokens, scores and steps: any change is movement."""
        now = self._clock()
        if marks != self._marks or stage is Stage.DEADLINE:
            self._marks, self._moved, self._reported = marks, now, now
        self.still_s = now - self._moved
        if now - self._reported < self._stall_s:
            return None
        return self.still_s

    def reported(self) -> None:
        """The stall was handled, which may have taken a while: the next `stall_timeout_s` begin now."""
        self._reported = self._clock()
