"""The group of learner ranks, which start, work and die together, and the budget of its restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from r1ray.config.schema import Config
from r1ray.control.backoff import Backoff
from r1ray.control.calls import TICK_S, gather, pause
from r1ray.control.handles import GroupApi, Handle, Place
from r1ray.errors import DiskFull, InfrastructureError, RetryBudgetExhausted
from r1ray.util.network import LOOPBACK

Rank = TypeVar("Rank", bound=GroupApi)
Placed = TypeVar("Placed", bound=GroupApi, covariant=True)
R = TypeVar("R")

TRANSIENT_ERRORS = (InfrastructureError, RuntimeError, OSError, MemoryError)
"""Errors of a rank that a restart may fix. RuntimeError: what torch raises for devices, memory and collectives."""


NODES_NOTICE_S = 10.0
"""A start that waits longer than this for nodes says so, and again after each NODES_REPEAT_S."""
NODES_REPEAT_S = 120.0


class Gang(Protocol[Placed]):
    """A reservation for all ranks of a learner: the cluster holds all of them or none."""

    @property
    def reserved(self) -> Future[Any]:
        """Done once the cluster has reserved the resources of every rank."""
        ...

    def describe(self) -> str:
        """What is reserved, and what the cluster has at present."""
        ...

    def spawn(self, rank: int) -> Handle[Placed]:
        """Start one rank."""
        ...

    def release(self) -> None:
        """Give the reservation back."""
        ...


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
    """`reserve()` requests the resources of all ranks. A call goes to all ranks, since they meet in its collectives."""

    def __init__(
        self,
        config: Config,
        *,
        reserve: Callable[[], Gang[Rank]],
        tick: Callable[[], None],
        on_event: Callable[..., None],
    ) -> None:
        self._config = config
        self._reserve = reserve
        self._tick = tick
        self._event = on_event
        self._gang: Gang[Rank] | None = None
        self.ranks: list[Handle[Rank]] = []
        self.places: dict[str, Place] = {}

    def start(self) -> list[dict[str, Any]]:
        """Start all ranks and join them; the answer of each rank's `setup`.

        No rank enters a collective before all of them run: a rank whose node is still booting must not use up the
        deadline of the others. Raises LearnerLostError, and ConfigError for a model that cannot be trained.
        """
        self._gang = gang = self._reserve()
        self._await_nodes(gang)
        self.ranks = [gang.spawn(rank) for rank in range(self._config.learner.ranks)]
        deadline, what = self._config.deadlines.actor_start_s, "start (deadlines.actor_start_s)"
        until = time.monotonic() + deadline
        addresses = self.call(lambda rank: rank.start(GroupApi.address), deadline_s=deadline, what=what)
        host = addresses[0] if len(set(addresses)) > 1 else LOOPBACK  # the rendezvous has no authentication
        left = until - time.monotonic()
        port, *_ = self.call(lambda rank: rank.start(GroupApi.listen, host), deadline_s=left, what=what)
        left = until - time.monotonic()
        infos = self.call(lambda rank: rank.start(GroupApi.setup, host, port), deadline_s=left, what=what)
        self.places = {rank.name: info["place"] for rank, info in zip(self.ranks, infos, strict=True)}
        return infos

    def _await_nodes(self, gang: Gang[Rank]) -> None:
        """Wait for the reservation. Raises LearnerLostError at deadlines.actor_start_s."""
        deadline, began = self._config.deadlines.actor_start_s, time.monotonic()
        due = began + NODES_NOTICE_S

        def tick() -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + NODES_REPEAT_S
                waited = time.monotonic() - began
                self._event("learner_waiting", message=gang.describe(), seconds=waited, deadline_s=deadline)
            self._tick()

        done = gather({"learner": gang.reserved}, deadline_s=deadline, what="reservation", tick=tick)
        for error in done.failures.values():
            what = f"{gang.describe()}, which it did not reserve within {deadline:g} s (deadlines.actor_start_s)"
            self.kill()
            raise LearnerLostError(f"the learner waited for {what}: {error}") from error

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
        full = next((e for e in done.failures.values() if isinstance(e, DiskFull)), None)
        if full is not None:  # all ranks end this call, and are as before
            rest = {name: c for name, c in calls.items() if name not in done.failures}
            others = gather(rest, deadline_s=until - time.monotonic(), what=what, tick=self._tick).failures
            worse = {n: e for n, e in (done.failures | others).items() if not isinstance(e, DiskFull)}
            raise self._lost(worse, what) if worse else full
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
        if self._gang is not None:
            self._gang.release()
            self._gang = None

    def _lost(self, failures: Mapping[str, BaseException], what: str) -> BaseException:
        self.kill()
        for error in failures.values():
            if not isinstance(error, TRANSIENT_ERRORS):
                return error
        name, error = next(iter(failures.items()))
        return LearnerLostError(f"{name} was lost during: {what}: {error}")
