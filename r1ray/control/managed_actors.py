"""The actors that Ray itself restarts, the queue and the reward workers: noticed, counted, and ended where they hang. Where one
dies again and again, the pauses before it is started again grow, so that its budget is not spent within seconds.

They keep nothing in memory that is not on the disk or sent again, so nobody has to hand anything back for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ray.control.backoff import Backoff
from r1ray.control.calls import Place, Remote
from r1ray.control.health import Health, HealthLimits, State
from r1ray.control.pulse import Pulse
from r1ray.errors import RetryBudgetExhausted


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many deaths in a row each actor of a kind may have; they are counted together."""

    restarts: int
    key: str  # of the configuration


@dataclass(slots=True)
class _Actor:
    remote: Remote
    budget: Budget
    health: Health
    pulse: Pulse
    place: Place | None = None
    trouble: str | None = None  # what keeps it from its work although it lives
    starts: Backoff = field(default_factory=Backoff)

    @property
    def pid(self) -> int | None:
        return None if self.place is None else self.place["pid"]


class RayManagedActors:
    """Asks each where it is (`identity`): another process id than before means that it died in between.

    "In a row" means without a training step in between (`succeeded`).
    """

    def __init__(
        self,
        kinds: Sequence[tuple[Budget, Sequence[Remote]]],
        *,
        limits: HealthLimits,
        on_event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event = on_event
        self._clock = clock
        self._actors: list[_Actor] = []
        self._deaths: dict[str, int] = {}  # by the key of the budget
        self._limits = {budget.key: budget.restarts * len(remotes) for budget, remotes in kinds}
        for budget, remotes in kinds:
            for remote in remotes:
                health = Health(limits, clock())
                self._actors.append(_Actor(remote, budget, health, Pulse(remote, "identity", health)))

    def states(self) -> dict[str, tuple[str, int | None]]:
        """State and process id by name."""
        return {a.remote.name: (a.health.state.value, a.pid) for a in self._actors}

    @property
    def places(self) -> dict[str, Place]:
        """Where each is of which that is known."""
        return {a.remote.name: a.place for a in self._actors if a.place is not None}

    @property
    def trouble(self) -> str | None:
        """What keeps one of them from its work for now, by its own word; None where nothing does."""
        return next((f"{a.remote.name}: {a.trouble}" for a in self._actors if a.trouble), None)

    def succeeded(self) -> None:
        """A step was trained: the deaths before it are forgiven."""
        self._deaths.clear()
        for actor in self._actors:
            actor.starts.succeeded()

    def restart(self, reason: str) -> None:
        """End all of them, even those that answer: their work may hang. Ray restarts them. Raises RetryBudgetExhausted."""
        for actor in self._actors:
            if actor.health.state is not State.RESTARTING:
                self._restart(actor, reason, self._clock())

    def tick(self) -> None:
        """Look after everybody once; never blocks. Raises RetryBudgetExhausted."""
        now = self._clock()
        for actor in self._actors:
            if actor.health.state is not State.DEAD and (told := actor.pulse.beat(now)) is not None:
                self._heard(actor, told)
            if actor.health.check(now) is State.DEAD and actor.starts.due(now):
                self._restart(actor, actor.health.reason, now)

    def _restart(self, actor: _Actor, reason: str, now: float) -> None:
        actor.starts.tried(now)
        actor.remote.kill()  # Ray starts it again
        actor.health.restart(now)
        actor.pulse = Pulse(actor.remote, "identity", actor.health)
        actor.place = actor.trouble = None
        self._died(actor, reason)

    def _heard(self, actor: _Actor, told: dict[str, Any]) -> None:
        pid = told["pid"]
        if actor.pid is not None and actor.pid != pid:
            self._died(actor, f"process {actor.pid} is gone")
        if actor.pid != pid:
            self._event("actor_ready", actor=actor.remote.name, pid=pid)
        actor.place, actor.trouble = {"pid": pid, "node": told["node"]}, told.get("trouble")
        actor.health.ready()
        actor.health.synced()  # it serves no policy that could be stale

    def _died(self, actor: _Actor, reason: str) -> None:
        name, budget = actor.remote.name, actor.budget
        deaths = self._deaths[budget.key] = self._deaths.get(budget.key, 0) + 1
        self._event("actor_lost", actor=name, reason=reason)
        if deaths > self._limits[budget.key]:
            raise RetryBudgetExhausted(
                f"{deaths} deaths without a training step in between ({budget.key}={budget.restarts} for each); "
                f"the last one, {name}: {reason}"
            )
