"""Notices a run in which nothing moves although nothing has failed: no token, no score, no step for recovery.stall_timeout_s."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum


class Stage(Enum):
    """What the controller waits for. The value says who is to be looked at when it takes too long."""

    BATCH = "rollout and reward workers"
    EVALUATION = "rollout workers"
    STEP = "learner"
    SYNC = "learner and rollout workers"
    DEADLINE = ""  # starts, checkpoints, exports: nothing need move, and each has a deadline of its own


class Watchdog:
    """`look` tells for how long nothing has moved, once that is `stall_timeout_s` or more.

    Example with stall_timeout_s=10: look((5, 2, 1)) at 0 s -> None, the same at 11 s -> 11.0; told(); the same at 15 s -> None,
    at 22 s -> 22.0; look((6, 2, 1)) -> None.
    """

    def __init__(self, stall_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_s = stall_timeout_s
        self._clock = clock
        self._marks: tuple[float, ...] = ()
        self._moved = clock()
        self._told = self._moved

    def look(self, marks: tuple[float, ...], stage: Stage) -> float | None:
        """`marks` are counters of tokens, scores and steps: any change is movement."""
        now = self._clock()
        if marks != self._marks or stage is Stage.DEADLINE:
            self._marks, self._moved, self._told = marks, now, now
            return None
        if now - self._told < self._stall_s:
            return None
        return now - self._moved

    def told(self) -> None:
        """It was dealt with, which may have taken its time: the next `stall_timeout_s` begin now."""
        self._told = self._clock()
