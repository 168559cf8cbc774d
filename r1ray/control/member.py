"""One rollout worker, as the fleet knows it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from r1ray.control.backoff import Backoff
from r1ray.control.handles import Handle, Place, RolloutApi, WorkerInfo
from r1ray.control.health import Health, HealthLimits
from r1ray.control.health_probe import HealthProbe

DRAINING = "draining"


@dataclass(slots=True)
class Member:
    """One worker. `stats` is its last answer to a health check (RolloutWorker.stats)."""

    handle: Handle[RolloutApi]
    ready: Future[WorkerInfo]
    started: float
    health: Health
    probe: HealthProbe[dict[str, float]]
    version: int = -1
    place: Place | None = None
    stats: dict[str, float] = field(default_factory=dict)
    tokens_per_s: float = 0.0
    answered_at: float = 0.0
    drain: tuple[Future[None], float] | None = None  # while it leaves: its last call, and the time until it may take
    misses: int = 0  # syncs in a row
    sync_again: Backoff = field(default_factory=Backoff)

    @property
    def node(self) -> str | None:
        """Ray's id of its node; None until it is ready."""
        return None if self.place is None else self.place["node"]

    @property
    def state(self) -> str:
        """As `status` shows it."""
        return DRAINING if self.drain else self.health.state.value

    def answered(self, stats: dict[str, float], now: float) -> float:
        """Take in its answer to a health check; returns the number of tokens that it has generated since the last."""
        generated = stats["tokens"] - self.stats.get("tokens", 0.0)
        self.tokens_per_s = generated / max(1e-9, now - self.answered_at)
        self.stats, self.answered_at = stats, now
        return generated

    def stuck(self, limits: HealthLimits) -> str | None:
        """Why its engine counts as hanging; None if it does not. The first step may compile kernels."""
        seconds = self.stats["stuck_s"]
        limit, key = (limits.dead_s, "rpc_s") if self.stats["warm"] else (limits.start_s, "actor_start_s")
        if seconds <= limit:
            return None
        return f"its engine has been in one step for {seconds:.0f} s, {limit:g} s is the limit (deadlines.{key})"
