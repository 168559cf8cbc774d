"""The rollout workers of a run: who is starting, who serves which policy, who is gone and is to be replaced.

    STARTING --ready--> UNSYNCED --whole sync--> SERVING --left out of a sync--> UNSYNCED
        \\___________________|______________________|------dies, or does not answer------> replaced, while the budget lasts

The fleet never decides when to sync; it tells the controller who could take part (`alive`) and who waits for it (`unsynced`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from r1ray.control.calls import Remote
from r1ray.errors import BudgetSpent, ConfigError, IntegrityError

HEALTH_EVERY_S = 1.0


class State(Enum):
    STARTING = "starting"
    UNSYNCED = "unsynced"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(slots=True)
class Member:
    """One worker. `stats` is what it last said of itself (RolloutWorker.stats)."""

    remote: Remote
    ready: Future[Any]
    started: float
    state: State = State.STARTING
    version: int = -1
    stats: dict[str, float] = field(default_factory=dict)
    tokens_per_s: float = 0.0
    asked: tuple[Future[Any], float] | None = None  # the health question under way and when it was asked
    heard: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    workers: int  # desired at the start
    restart_budget: int  # deaths in a row
    start_s: float  # deadline of a start
    answer_s: float  # deadline of a health question
    drain_s: float


class Fleet:
    """`spawn(name)` starts a worker and returns it with a future of its readiness; `on_event` hears of every change."""

    def __init__(
        self,
        settings: FleetSettings,
        *,
        spawn: Callable[[str], tuple[Remote, Future[Any]]],
        release: Callable[[str], None],
        on_event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._spawn = spawn
        self._release = release
        self._event = on_event
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._next = 0
        self._deaths = 0  # in a row, without a worker becoming ready in between
        self._sizes: dict[str, int] = {}
        self.desired = settings.workers

    # -- what the controller asks -------------------------------------------------------------------------------

    @property
    def members(self) -> dict[str, Member]:
        return dict(self._members)

    def alive(self) -> dict[str, Remote]:
        """Workers that can take part in a sync."""
        return {n: m.remote for n, m in self._members.items() if m.state in (State.UNSYNCED, State.SERVING)}

    def unsynced(self) -> list[str]:
        return [n for n, m in self._members.items() if m.state is State.UNSYNCED]

    def serving(self) -> dict[str, Remote]:
        return {n: m.remote for n, m in self._members.items() if m.state is State.SERVING}

    def evaluation_sizes(self) -> dict[str, int]:
        """Problems by evaluation source, as the last worker to get ready counted them."""
        return self._sizes

    # -- what happens -------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look after everybody once; never blocks. Raises BudgetSpent."""
        now = self._clock()
        for name, member in list(self._members.items()):
            if member.state is State.STARTING:
                self._tick_start(name, member, now)
            elif member.state is State.DRAINING:
                self._tick_drain(name, member, now)
            else:
                self._tick_health(name, member, now)
        self._match_desired(now)

    def synced(self, names: tuple[str, ...], version: int) -> None:
        for name in names:
            if name in self._members:
                self._members[name].version = version
                self._members[name].state = State.SERVING

    def out_of_sync(self, name: str, reason: str) -> None:
        """The worker missed a sync: alive, on its old policy, until it completes a whole one."""
        if name in self._members:
            self._members[name].state = State.UNSYNCED
            self._event("worker_stale", worker=name, reason=reason)

    def lost(self, name: str, reason: str) -> None:
        """The worker died or must not go on. Its leases go back and `tick` replaces it."""
        member = self._members.pop(name, None)
        if member is None:
            return
        member.remote.kill()
        self._release(name)
        self._deaths += 1
        self._event("worker_lost", worker=name, reason=reason, state=member.state.value)
        if self._deaths > self._settings.restart_budget:
            raise BudgetSpent(
                f"{self._deaths} rollout workers in a row died without one getting ready (recovery.worker_restarts="
                f"{self._settings.restart_budget}); the last one, {name}: {reason}"
            )

    def _match_desired(self, now: float) -> None:
        present = [n for n, m in self._members.items() if m.state is not State.DRAINING]
        for _ in range(self.desired - len(present)):
            name = f"rollout-{self._next}"
            self._next += 1
            remote, ready = self._spawn(name)
            self._members[name] = Member(remote=remote, ready=ready, started=now)
            self._event("worker_started", worker=name)
        for name in present[self.desired :]:
            member = self._members[name]
            member.state = State.DRAINING
            member.ready = member.remote.call("drain", self._settings.drain_s)
            member.started = now
            self._event("worker_draining", worker=name)

    def _tick_start(self, name: str, member: Member, now: float) -> None:
        if member.ready.done():
            error = member.ready.exception()
            if isinstance(error, ConfigError | IntegrityError):
                raise error  # the next worker would fail in the same way
            if error is not None:
                self.lost(name, f"did not start: {error}")
                return
            member.state, member.heard = State.UNSYNCED, now
            self._deaths = 0
            about = member.ready.result()
            self._sizes = about["evaluation"]
            self._event("worker_ready", worker=name, pid=about["pid"], seconds=now - member.started)
        elif now - member.started > self._settings.start_s:
            self.lost(name, f"not ready after {self._settings.start_s:g} s (deadlines.actor_start_s)")

    def _tick_drain(self, name: str, member: Member, now: float) -> None:
        if not member.ready.done() and now - member.started <= self._settings.drain_s:
            return
        del self._members[name]
        self._release(name)
        member.remote.kill()
        self._event("worker_left", worker=name, drained=member.ready.done() and member.ready.exception() is None)

    def _tick_health(self, name: str, member: Member, now: float) -> None:
        if member.asked is None:
            if now - member.heard >= HEALTH_EVERY_S:
                member.asked = (member.remote.call("stats"), now)
            return
        answer, asked = member.asked
        if answer.done():
            member.asked = None
            error = answer.exception()
            if error is not None:
                self.lost(name, str(error))
                return
            stats = answer.result()
            if member.stats:
                member.tokens_per_s = (stats["tokens"] - member.stats["tokens"]) / max(1e-9, now - member.heard)
            member.stats, member.heard = stats, now
        elif now - asked > self._settings.answer_s:
            self.lost(name, f"did not answer a health question for {self._settings.answer_s:g} s (deadlines.rpc_s)")
