"""Health of a process of the run: a state machine over facts and times, without a process or a clock of its own.

    RESTARTING --ready--> STALE --weight sync--> HEALTHY
        ^                  |  ^------left out------|
        |                  |                       |
        |            no answer for suspect_s: SUSPECT; at the answer the state before
        |                  |                       |
        +--restart-- DEAD <+--- died, or a deadline passed

A SUSPECT worker is left out of the next weight sync, which would wait for it; it keeps its leases.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """The value is what `status` shows."""

    RESTARTING = "starting"  # the first process or the one after a death, until it is ready
    STALE = "stale"  # alive, with an old policy or none: waits for a complete sync
    HEALTHY = "healthy"
    SUSPECT = "suspect"  # a health check has not been answered for a while
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimits:
    """Seconds. `dead_s` must exceed `suspect_s`."""

    start_s: float  # from the start to "ready"
    suspect_s: float  # without an answer to a health check
    dead_s: float  # without an answer to the same health check


class Health:
    """One observed process; `now` is in seconds of any monotonic clock.

    Example with suspect_s=5, dead_s=60: ready(0), synced(), request_sent(1), check(7) -> SUSPECT, answered() ->
    HEALTHY, request_sent(8), check(69) -> DEAD, restart(70) -> RESTARTING.
    """

    def __init__(self, limits: HealthLimits, now: float) -> None:
        self._limits = limits
        self.restart(now)

    def restart(self, now: float) -> None:
        """A new process was started."""
        self.state = State.RESTARTING
        self.reason = ""  # why it is DEAD
        self._began = now
        self._requested: float | None = None
        self._trusted = State.STALE  # the state of a SUSPECT process once it answers

    @property
    def alive(self) -> bool:
        """Whether it may take part in a weight sync."""
        return self.state in (State.STALE, State.HEALTHY)

    def ready(self) -> None:
        """The process has started and answers calls."""
        if self.state is State.RESTARTING:
            self._requested = None
            self.state = State.STALE

    def request_sent(self, now: float) -> None:
        """A health check was sent; the first unanswered one counts."""
        if self._requested is None:
            self._requested = now

    def answered(self) -> None:
        """A health check was answered."""
        self._requested = None
        if self.state is State.SUSPECT:
            self.state = self._trusted

    def synced(self) -> None:
        """It completed a weight sync, which is a sign of life too."""
        if self.state in (State.STALE, State.HEALTHY, State.SUSPECT):
            self._requested = None
            self.state = State.HEALTHY

    def missed_sync(self) -> None:
        """A weight sync took place without it, or failed for it."""
        self._trusted = State.STALE
        if self.state is State.HEALTHY:
            self.state = State.STALE

    def died(self, reason: str) -> None:
        """The process is gone or must be replaced."""
        self.state, self.reason = State.DEAD, reason

    def check(self, now: float) -> State:
        """The state after all deadlines that have passed by `now`."""
        limits = self._limits
        if self.state is State.RESTARTING:
            if now - self._began > limits.start_s:
                self.died(f"not ready after {limits.start_s:g} s (deadlines.actor_start_s)")
        elif self._requested is not None and self.state is not State.DEAD:
            open_s = now - self._requested
            if open_s > limits.dead_s:
                self.died(f"did not answer a health check for {limits.dead_s:g} s (deadlines.rpc_s)")
            elif open_s > limits.suspect_s and self.alive:
                self._trusted, self.state = self.state, State.SUSPECT
        return self.state
