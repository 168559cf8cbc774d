"""Actors that Ray restarts by itself (queue, reward workers): health checks, count of deaths, kills if they hang.

An actor that dies repeatedly is restarted after growing pauses, so that its budget lasts. These actors keep no state in
memory that is not on disk or sent again, so nothing has to be returned for a dead one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from r1ray.control.backoff import Backoff
from r1ray.control.handles import Handle, Identity, ManagedApi, Place
from r1ray.control.health import Health, HealthLimits, State
from r1ray.control.health_probe import HealthProbe
from r1ray.errors import RetryBudgetExhausted


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Deaths in a row that each actor of a kind may have; the deaths of a kind are counted together."""

    restarts: int
    key: str  # of the configuration


@dataclass(slots=True)
class _Actor:
    handle: Handle[ManagedApi]
    budget: Budget
    health: Health
    probe: HealthProbe[Identity]
    place: Place | None = None
    problem: str | None = None  # why its calls fail although it is alive
    rss_bytes: int | None = None
    starts: Backoff = field(default_factory=Backoff)

    @property
    def pid(self) -> int | None:
        return None if self.place is None else self.place["pid"]


class RayManagedActors:
    """Requests the process id of each actor (`identity`): another id than before means that the actor died in between.

    "In a row" means without a training step in between (`succeeded`).
    """

    def __init__(
        self,
        kinds: Sequence[tuple[Budget, Sequence[Handle[ManagedApi]]]],
        *,
        limits: HealthLimits,
        on_event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event = on_event
        self._clock = clock
        self._actors: list[_Actor] = []
        self._deaths: dict[str, int] = {}  # by the key of the budget
        self._limits = {budget.key: budget.restarts * len(handles) for budget, handles in kinds}
        for budget, handles in kinds:
            for handle in handles:
                health = Health(limits, clock())
                self._actors.append(_Actor(handle, budget, health, _probe(handle, health)))

    def states(self) -> dict[str, tuple[str, int | None]]:
        """State and process id by name."""
        return {a.handle.name: (a.health.state.value, a.pid) for a in self._actors}

    @property
    def places(self) -> dict[str, Place]:
        """Process of each actor that has answered."""
        return {a.handle.name: a.place for a in self._actors if a.place is not None}

    def memory(self) -> dict[str, float]:
        """Resident memory in bytes by name."""
        return {a.handle.name: float(a.rss_bytes) for a in self._actors if a.rss_bytes is not None}

    def budgets(self) -> dict[str, float]:
        """Used share of the restarts, by key."""
        return {key: self._deaths.get(key, 0) / max(1, limit) for key, limit in self._limits.items()}

    @property
    def problem(self) -> str | None:
        """Why the calls of one of the actors fail at present, as that actor reported it; None if they succeed."""
        return next((f"{a.handle.name}: {a.problem}" for a in self._actors if a.problem), None)

    def succeeded(self) -> None:
        """A step was trained: reset the counts of deaths."""
        self._deaths.clear()
        for actor in self._actors:
            actor.starts.succeeded()

    def restart(self, reason: str) -> None:
        """Kill all actors, even those that answer: their work may hang. Raises RetryBudgetExhausted."""
        for actor in self._actors:
            if actor.health.state is not State.RESTARTING:
                self._restart(actor, reason, self._clock())

    def tick(self) -> None:
        """Check every actor once; never blocks. Raises RetryBudgetExhausted."""
        now = self._clock()
        for actor in self._actors:
            if actor.health.state is not State.DEAD and (identity := actor.probe.poll(now)) is not None:
                self._answered(actor, identity)
            if actor.health.check(now) is State.DEAD and actor.starts.due(now):
                self._restart(actor, actor.health.reason, now)

    def _restart(self, actor: _Actor, reason: str, now: float) -> None:
        actor.starts.tried(now)
        actor.handle.kill()  # Ray starts it again
        actor.health.restart(now)
        actor.probe = _probe(actor.handle, actor.health)
        actor.place = actor.problem = actor.rss_bytes = None
        self._died(actor, reason)

    def _answered(self, actor: _Actor, identity: Identity) -> None:
        pid = identity["pid"]
        if actor.pid is not None and actor.pid != pid:
            self._died(actor, f"process {actor.pid} is gone")
        if actor.pid != pid:
            self._event("actor_ready", actor=actor.handle.name, pid=pid)
        actor.place, actor.problem = {"pid": pid, "node": identity["node"]}, identity.get("problem")
        actor.rss_bytes = identity.get("rss_bytes")
        actor.health.ready()
        actor.health.synced()  # it serves no policy that could be stale

    def _died(self, actor: _Actor, reason: str) -> None:
        name, budget = actor.handle.name, actor.budget
        deaths = self._deaths[budget.key] = self._deaths.get(budget.key, 0) + 1
        self._event("actor_lost", actor=name, reason=reason)
        if deaths > self._limits[budget.key]:
            raise RetryBudgetExhausted(
                f"{deaths} deaths without a training step in between ({budget.key}={budget.restarts} for each); "
                f"the last one, {name}: {reason}"
            )


def _probe(handle: Handle[ManagedApi], health: Health) -> HealthProbe[Identity]:
    return HealthProbe(partial(handle.start, ManagedApi.identity), health)
