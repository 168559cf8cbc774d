"""The actors that Ray itself restarts, the queue and the reward workers: noticed, counted, and ended where they hang.

They keep nothing in memory that is not on the disk or sent again, so nobody has to hand anything back for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1ray.control.calls import Remote
from r1ray.control.health import Health, HealthLimits, State
from r1ray.control.pulse import Pulse
from r1ray.errors import BudgetSpent


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many deaths in a row a kind of actor may have."""

    restarts: int
    key: str  # of the configuration


@dataclass(slots=True)
class _Actor:
    remote: Remote
    budget: Budget
    health: Health
    pulse: Pulse
    pid: int | None = None


class StandingActors:
    """Asks each for its process id (`identity`): another one than before means that it died in between.

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
        for budget, remotes in kinds:
            for remote in remotes:
                health = Health(limits, clock())
                self._actors.append(_Actor(remote, budget, health, Pulse(remote, "identity", health)))

    def states(self) -> dict[str, tuple[str, int | None]]:
        """State and process id by name."""
        return {a.remote.name: (a.health.state.value, a.pid) for a in self._actors}

    def succeeded(self) -> None:
        """A step was trained: the deaths before it are forgiven."""
        self._deaths.clear()

    def tick(self) -> None:
        """Look after everybody once; never blocks. Raises BudgetSpent."""
        now = self._clock()
        for actor in self._actors:
            told = actor.pulse.beat(now)
            if told is not None:
                self._heard(actor, told["pid"], now)
            if actor.health.check(now) is State.DEAD:
                reason = actor.health.reason
                actor.remote.kill()  # Ray starts it again
                actor.health.restart(now)
                actor.pulse = Pulse(actor.remote, "identity", actor.health)
                actor.pid = None
                self._died(actor, reason)

    def _heard(self, actor: _Actor, pid: int, now: float) -> None:
        if actor.pid is not None and actor.pid != pid:
            self._died(actor, f"process {actor.pid} is gone")
        if actor.pid != pid:
            self._event("actor_ready", actor=actor.remote.name, pid=pid)
        actor.pid = pid
        actor.health.ready()
        actor.health.synced()  # it serves no policy that could be stale

    def _died(self, actor: _Actor, reason: str) -> None:
        name, budget = actor.remote.name, actor.budget
        deaths = self._deaths[budget.key] = self._deaths.get(budget.key, 0) + 1
        self._event("actor_lost", actor=name, reason=reason)
        if deaths > budget.restarts:
            raise BudgetSpent(
                f"{deaths} deaths without a training step in between ({budget.key}={budget.restarts}); "
                f"the last one, {name}: {reason}"
            )
