"""The rollout workers of a run: which are starting, which serve which policy, which are lost and must be replaced.

`r1ray.control.health` decides the state of each; the fleet checks, starts, kills and drains them. The controller
decides when to sync; the fleet provides the workers that can take part (`alive`) and that wait for a sync (`unsynced`).
Names are not reused, so the leases of a dead worker can return while its replacement leases. If workers keep dying, the
pauses between starts grow.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from r1ray.control.backoff import Backoff
from r1ray.control.handles import Handle, RolloutApi, WorkerInfo
from r1ray.control.health import Health, HealthLimits, State
from r1ray.control.health_probe import HealthProbe
from r1ray.control.member import Member
from r1ray.control.start_failures import StartFailures
from r1ray.errors import ConfigError, InfrastructureError, IntegrityError, ProcessDied, RetryBudgetExhausted, node_of

HOST_END_S = 10.0
"""A drain ends so long before its host does, so that unfinished prompts are leased again in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """The rules of a fleet."""

    workers: int  # desired at the start
    max_workers: int
    restart_budget: int  # deaths in a row, for each desired worker
    max_missed_syncs: int  # syncs in a row that a worker may miss
    limits: HealthLimits
    drain_s: float


class Fleet:
    """`spawn(name)` starts a worker and returns it with a future of its readiness; `on_event` gets every change.

    `release(name, drained)` returns the leases of a worker that died, or left on request (`drained`).
    `host_ends(node, seconds)`: nothing new may be placed on this node, which is taken away then. Returns why it failed.
    """

    def __init__(
        self,
        settings: FleetSettings,
        *,
        spawn: Callable[[str], tuple[Handle[RolloutApi], Future[WorkerInfo]]],
        release: Callable[[str, bool], None],
        on_event: Callable[..., None],
        host_ends: Callable[[str, float], str] = lambda node, seconds: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._spawn = spawn
        self._release = release
        self._event = on_event
        self._host_ends = host_ends
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._next = 0
        self._deaths = 0  # in a row, without a worker generating anything in between
        self._starts = Backoff()  # of replacements
        self._start_failures = StartFailures()
        self._sizes: dict[str, int] = {}
        self._desired = settings.workers

    # -- queries ------------------------------------------------------------------------------------------------

    @property
    def members(self) -> dict[str, Member]:
        """All workers by name."""
        return dict(self._members)

    @property
    def desired(self) -> int:
        """The number of workers that there should be."""
        return self._desired

    def alive(self) -> dict[str, Handle[RolloutApi]]:
        """Workers that can take part in a sync."""
        return {n: m.handle for n, m in self._staying() if m.health.alive}

    def unsynced(self) -> list[str]:
        """Workers that wait for a sync; one that missed its last syncs only after a pause."""
        now = self._clock()
        return [n for n, m in self._staying() if m.health.state is State.STALE and m.sync_again.due(now)]

    def serving(self) -> dict[str, Handle[RolloutApi]]:
        """Workers that serve the newest policy that was published."""
        return {n: m.handle for n, m in self._staying() if m.health.state is State.HEALTHY}

    def evaluation_sizes(self) -> dict[str, int]:
        """Number of problems by evaluation source, as reported by the last worker that became ready."""
        return self._sizes

    def budgets(self) -> dict[str, float]:
        """Used share of the restarts."""
        return {"recovery.max_worker_restarts": self._deaths / max(1, self._settings.restart_budget * self._desired)}

    def _staying(self) -> list[tuple[str, Member]]:
        return [(n, m) for n, m in self._members.items() if m.drain is None]

    # -- changes ------------------------------------------------------------------------------------------------

    def scale(self, workers: int, by: str) -> int:
        """Set the desired number of workers; returns the one before. `by`: who wants it, for the event.

        Raises ConfigError if `workers` is not within 1 and `max_workers`.
        """
        before, most = self._desired, self._settings.max_workers
        if not 1 <= workers <= most:
            expected = f"1 to {most} (rollout.max_workers, which a resume may change)"
            raise ConfigError(f"rollout={workers}: expected {expected}")
        if workers != before:
            self._desired = workers
            self._event("scaled", workers=workers, before=before, by=by)
        return before

    def tick(self) -> None:
        """Supervise every worker once; never blocks.

        Raises RetryBudgetExhausted, WorkersCannotStart, and an error of a start that every worker would meet.
        """
        now = self._clock()
        for name, member in list(self._members.items()):
            if member.drain is not None:
                self._tick_drain(name, member, now)
                continue
            if member.health.state is State.RESTARTING:
                self._tick_start(name, member, now)
            elif member.health.state is not State.DEAD:
                self._tick_answers(member, now)
            if name in self._members and member.health.check(now) is State.DEAD:
                self.lost(name, member.health.reason)
        self._match_desired(now)

    def synced(self, names: Iterable[str], version: int) -> None:
        """`names` serve `version`; all other workers missed the sync."""
        for name, member in self._members.items():
            if name in names:
                member.version = version
                member.health.synced()
                member.misses = 0
                member.sync_again.succeeded()
            else:
                member.health.missed_sync()

    def missed(self, name: str, reason: str) -> None:
        """The worker missed a sync and continues with its old policy until it completes one.

        It is replaced after `max_missed_syncs` in a row. Raises RetryBudgetExhausted.
        """
        member = self._members.get(name)
        if member is None:
            return
        self._event("worker_stale", worker=name, reason=reason)
        member.misses += 1
        member.sync_again.tried(self._clock())
        if member.misses >= self._settings.max_missed_syncs:
            self.lost(
                name, f"missed {member.misses} weight syncs in a row (recovery.max_missed_syncs), the last: {reason}"
            )

    def lost(self, name: str, reason: str) -> None:
        """The worker died or must be replaced: return its leases, replace it. Raises RetryBudgetExhausted."""
        member = self._members.get(name)
        if member is None:
            return
        self._event("worker_lost", worker=name, reason=reason, state=member.state)
        member.health.died(reason)
        self._forget(name, drained=False)
        self._deaths += 1
        if self._deaths > self._settings.restart_budget * self._desired:  # a host takes all of its workers at once
            raise RetryBudgetExhausted(
                f"{self._deaths} rollout workers in a row died without one generating anything "
                f"(recovery.max_worker_restarts={self._settings.restart_budget} for each of {self._desired}); "
                f"the last one, {name}: {reason}"
            )

    def _forget(self, name: str, *, drained: bool) -> None:
        member = self._members.pop(name)
        member.handle.kill()
        self._release(name, drained)

    def _match_desired(self, now: float) -> None:
        staying = self._staying()
        missing = self._desired - len(staying)
        if missing > 0 and self._starts.due(now):
            if self._deaths:
                self._starts.tried(now)
            for _ in range(missing):
                self._start(now)
        # Workers that serve are drained last; of these, workers of nodes with many others, so that nodes become empty;
        # of these, the oldest.
        nodes = Counter(m.node for _, m in staying)
        by_use = sorted(
            staying,
            key=lambda item: (item[1].health.state is not State.HEALTHY, -nodes[item[1].node] if item[1].node else 0),
        )
        for name, member in by_use[self._desired :]:
            self._drain(name, member, self._settings.drain_s, now)

    def _drain(self, name: str, member: Member, seconds: float, now: float) -> None:
        """Let a worker finish its groups for up to `seconds`; one that is still starting ends at once."""
        self._event("worker_draining", worker=name, seconds=seconds)
        if member.health.state is not State.RESTARTING:
            member.drain = (member.handle.start(RolloutApi.drain, seconds), now + seconds)
            return
        self._forget(name, drained=True)
        self._event("worker_left", worker=name, drained=True)

    def _start(self, now: float) -> None:
        name = f"rollout-{self._next}"
        self._next += 1
        handle, ready = self._spawn(name)
        health = Health(self._settings.limits, now)
        probe = HealthProbe(partial(handle.start, RolloutApi.stats), health)
        self._members[name] = Member(handle=handle, ready=ready, started=now, health=health, probe=probe)
        self._event("worker_started", worker=name)

    def _tick_start(self, name: str, member: Member, now: float) -> None:
        if not member.ready.done():
            return
        error = member.ready.exception()
        if isinstance(error, ConfigError | IntegrityError):
            raise error  # the next worker would fail in the same way
        if error is not None:
            cause = str(error) if isinstance(error, InfrastructureError) else f"{type(error).__name__}: {error}"
            node = node_of(error)
            self.lost(name, f"did not start: {cause}{f' (on node {node})' if node else ''}")
            self._start_failures.failed(name, error, workers=self._desired)
            return
        self._start_failures.succeeded()
        info = member.ready.result()
        member.health.ready()
        member.place, member.answered_at, self._sizes = info["place"], now, info["evaluation"]
        left_out = {"left_out": info["left_out"]} if info.get("left_out") else {}  # training rows, by source and reason
        self._event("worker_ready", worker=name, pid=info["place"]["pid"], seconds=now - member.started, **left_out)

    def _tick_drain(self, name: str, member: Member, now: float) -> None:
        assert member.drain is not None
        last, until = member.drain
        if last.done() or now > until:
            # A worker that ran out of time, or whose host is gone, counts as drained: its prompts are not at fault.
            died = last.done() and isinstance(last.exception(), ProcessDied) and "host_ends_s" not in member.stats
            self._forget(name, drained=not died)
            self._event("worker_left", worker=name, drained=last.done() and last.exception() is None)

    def _tick_answers(self, member: Member, now: float) -> None:
        stats = member.probe.poll(now)
        if stats is None:
            return
        if stats["short_of_memory"] != member.stats.get("short_of_memory", 0.0):
            self._event("memory_pressure", worker=member.handle.name, leasing=not stats["short_of_memory"])
        if member.answered(stats, now):
            self._deaths = 0
            self._starts.succeeded()
        if (seconds := stats.get("host_ends_s")) is not None:
            name, node = member.handle.name, member.node
            assert node is not None  # it was ready before it answered
            self._event("host_ends", worker=name, node=node, seconds=seconds, problem=self._host_ends(node, seconds))
            self._drain(name, member, max(1.0, min(self._settings.drain_s, seconds - HOST_END_S)), now)
            return
        if (reason := member.stuck(self._settings.limits)) is not None:
            member.health.died(reason)
