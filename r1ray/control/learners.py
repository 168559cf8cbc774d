"""The group of learner ranks, which start, work and die together, and the budget of its restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from r1ray.config.schema import Config
from r1ray.control.backoff import Backoff
from r1ray.control.calls import TICK_S, gather, pause
from r1ray.control.handles import GroupApi, Handle, Place
from r1ray.errors import DiskFull, InfrastructureError, RetryBudgetExhausted

Rank = TypeVar("Rank", bound=GroupApi)
R = TypeVar("R")

TRANSIENT_ERRORS = (InfrastructureError, RuntimeError, OSError, MemoryError)
"""Errors of a rank that a restart may fix. RuntimeError: what torch raises for devices, memory and collectives."""


class LearnerLostError(InfrastructureError):
    """A rank died or hung, and the group was killed; restart it from the last complete checkpoint."""


class Restarts:
    """Counts deaths of the learner without a checkpoint in between; pauses before restarts grow."""

    def __init__(self, budget: int, *, tick: Callable[[], None], on_event: Callable[..., None]) -> None:
        self._budget = budget
        self._tick = tick
        self._event = on_event
        self._deaths = 0
        self._starts = Backoff()

    @property
    def used(self) -> float:
        """Used share of the budget."""
        return self._deaths / max(1, self._budget)

    def lost(self, error: LearnerLostError) -> None:
        """Count a death. Raises RetryBudgetExhausted."""
        self._deaths += 1
        self._starts.tried(time.monotonic())
        self._event("learner_lost", message=str(error))
        if self._deaths > self._budget:
            raise RetryBudgetExhausted(
                f"the learner was lost {self._deaths} times without a checkpoint in between "
                f"(recovery.max_learner_restarts={self._budget}); the last time: {error}"
            ) from error

    def saved(self) -> None:
        """A checkpoint was written: reset the count."""
        self._deaths = 0
        self._starts.succeeded()

    def wait(self) -> None:
        """Wait until the next start is due."""
        while not self._starts.due(time.monotonic()):
            pause(TICK_S, self._tick)


class LearnerGroup(Generic[Rank]):
    """`spawn(rank)` starts one rank. A call goes to all ranks, since they meet in its collectives."""

    def __init__(self, config: Config, *, spawn: Callable[[int], Handle[Rank]], tick: Callable[[], None]) -> None:
        self._config = config
        self._spawn = spawn
        self._tick = tick
        self.ranks: list[Handle[Rank]] = []
        self.places: dict[str, Place] = {}

    def start(self) -> list[dict[str, Any]]:
        """Start all ranks and join them; the answer of each rank's `setup`.

        Raises LearnerLostError, and ConfigError for a model that cannot be trained.
        """
        self.ranks = [self._spawn(rank) for rank in range(self._config.learner.ranks)]
        deadline = self._config.deadlines.actor_start_s
        what = "start (deadlines.actor_start_s)"
        first = gather(
            {self.ranks[0].name: self.ranks[0].start(GroupApi.address)}, deadline_s=deadline, what=what, tick=self._tick
        )
        if first.failures:
            raise self._lost(first.failures, what)
        ((address, port),) = first.results.values()
        infos = self.call(lambda rank: rank.start(GroupApi.setup, address, port), deadline_s=deadline, what=what)
        self.places = {rank.name: info["place"] for rank, info in zip(self.ranks, infos, strict=True)}
        return infos

    def call(
        self,
        start: Callable[[Handle[Rank]], Future[R]],
        *,
        deadline_s: float,
        what: str,
        meanwhile: Callable[[], None] | None = None,
    ) -> list[R]:
        """`start` a call on every rank; results in the order of ranks. `meanwhile` runs once while they work.

        Raises DiskFull if a rank could not write: the group is as before. Otherwise the group is killed and the error
        is LearnerLostError, or as a rank raised it if a new group would raise it too (configuration, a bug).
        """
        ranks = self.ranks
        calls = {rank.name: start(rank) for rank in ranks}
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
            raise LearnerLostError(f"the learner was killed during: {what}")
        return [done.results[rank.name] for rank in ranks]

    def kill(self) -> None:
        """End all ranks; a call in progress fails."""
        for rank in self.ranks:
            rank.kill()
        self.ranks = []

    def _lost(self, failures: Mapping[str, BaseException], what: str) -> BaseException:
        self.kill()
        for error in failures.values():
            if not isinstance(error, TRANSIENT_ERRORS):
                return error
        name, error = next(iter(failures.items()))
        return LearnerLostError(f"{name} was lost during: {what}: {error}")
