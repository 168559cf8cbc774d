"""The learner ranks as one: they start, work and die together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from r1ray.config.schema import Config
from r1ray.control.backoff import Backoff
from r1ray.control.calls import TICK_S, Place, Remote, gather, pause
from r1ray.errors import DiskFull, InfrastructureError, RetryBudgetExhausted

TRANSIENT_ERRORS = (InfrastructureError, RuntimeError, OSError, MemoryError)
"""Errors of a rank that new processes may not meet. RuntimeError: what torch raises for devices, memory and collectives."""


class LearnerLost(InfrastructureError):
    """A rank died or hung, and the group with it; it is to be restarted from the last whole checkpoint."""


class Restarts:
    """Deaths of the learner without a checkpoint in between: counted, and each but the first is followed by a longer pause."""

    def __init__(self, budget: int, *, tick: Callable[[], None], on_event: Callable[..., None]) -> None:
        self._budget = budget
        self._tick = tick
        self._event = on_event
        self._deaths = 0
        self._starts = Backoff()

    def lost(self, error: LearnerLost) -> None:
        """It is gone. Raises RetryBudgetExhausted."""
        self._deaths += 1
        self._starts.tried(time.monotonic())
        self._event("learner_lost", message=str(error))
        if self._deaths > self._budget:
            raise RetryBudgetExhausted(
                f"the learner was lost {self._deaths} times without a checkpoint in between "
                f"(recovery.learner_restarts={self._budget}); the last time: {error}"
            ) from error

    def saved(self) -> None:
        self._deaths = 0
        self._starts.succeeded()

    def wait(self) -> None:
        """Until the next start is due."""
        while not self._starts.due(time.monotonic()):
            pause(TICK_S, self._tick)


class LearnerGroup:
    """`spawn(rank)` starts one rank. A call goes to all ranks, since all of them meet in its collectives."""

    def __init__(self, config: Config, *, spawn: Callable[[int], Remote], tick: Callable[[], None]) -> None:
        self._config = config
        self._spawn = spawn
        self._tick = tick
        self.ranks: list[Remote] = []
        self.places: dict[str, Place] = {}

    def start(self) -> list[Any]:
        """Start all ranks and join them; what each said of itself.

        Raises LearnerLost, and ConfigError for a model that cannot be trained."""
        self.ranks = [self._spawn(rank) for rank in range(self._config.learner.ranks)]
        deadline = self._config.deadlines.actor_start_s
        what = "the learner to start (deadlines.actor_start_s)"
        first = gather({"learner-0": self.ranks[0].call("address")}, deadline_s=deadline, what=what, tick=self._tick)
        if first.failures:
            raise self._lost(first.failures, what)
        address, port = first.results["learner-0"]
        infos = self.call("setup", address, port, deadline_s=deadline, what=what)
        self.places = {rank.name: info["place"] for rank, info in zip(self.ranks, infos, strict=True)}
        return infos

    def call(
        self, method: str, *args: Any, deadline_s: float, what: str, meanwhile: Callable[[], None] | None = None
    ) -> list[Any]:
        """Call every rank; results in the order of ranks. `meanwhile` runs once while they work.

        Raises DiskFull where a rank could not write: the group is as before. Else the group is killed and the error is
        LearnerLost, or as a rank raised it where a new group would run into it too (configuration, a bad checkpoint, a bug).
        """
        ranks = self.ranks
        calls = {r.name: r.call(method, *args) for r in ranks}
        if meanwhile is not None:
            meanwhile()
        until = time.monotonic() + deadline_s
        done = gather(calls, deadline_s=deadline_s, what=what, tick=self._tick, fail_fast=True)
        for error in done.failures.values():
            if isinstance(error, DiskFull):  # of the rank that writes; it and the others are as before
                rest = {name: c for name, c in calls.items() if name not in done.failures}
                done = gather(rest, deadline_s=until - time.monotonic(), what=what, tick=self._tick)
                raise self._lost(done.failures, what) if done.failures else error
        if done.failures:
            raise self._lost(done.failures, what)
        if not ranks or self.ranks is not ranks:
            raise LearnerLost(f"the learner was ended while it was to {what}")
        return [done.results[r.name] for r in ranks]

    def kill(self) -> None:
        """End all ranks; a call under way fails."""
        for rank in self.ranks:
            rank.kill()
        self.ranks = []

    def _lost(self, failures: dict[str, BaseException], what: str) -> BaseException:
        self.kill()
        for error in failures.values():
            if not isinstance(error, TRANSIENT_ERRORS):
                return error
        name, error = next(iter(failures.items()))
        return LearnerLost(f"{name} was lost while it was to {what}: {error}")
