"""Let the number of rollout workers follow the load (`rollout.autoscale`).

    every tick    learner waits for a batch? batches ready? idle time of the engines    --> AutoscalePolicy
    every rollout.autoscale.window_s of settled time                                    --> number of workers --> Fleet

Time does not count while workers start, leave or evaluate, and during outages: what is seen then says nothing about
their number. The fleet starts and drains the workers. A started actor that finds no room is the request to Ray's
autoscaler for a node, and a node without actors ends after its idle timeout.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from r1ray.config.schema import Config
from r1ray.control.fleet import Fleet
from r1ray.control.health import State
from r1ray.control.progress import Progress
from r1ray.control.watchdog import Stage
from r1ray.errors import ConfigError
from r1ray.util.formatting import share

UP_IDLE = 0.25
"""The learner is starved if it waits for batches for a larger share of the time."""

DOWN_IDLE = 0.05
"""Nothing is taken away if the learner waits for a larger share."""

FULL = 0.8
"""Share of the time in which a complete batch waits for the learner, and share of the time that the remaining workers
may be busy: below, one worker less is enough."""

UP_WINDOWS, DOWN_WINDOWS = 2, 5
"""Windows in a row with the same verdict before the number changes. A worker too many costs less than a learner that
waits, and its node takes minutes to come back."""

COOL_DOWN_S = 600.0
"""Pause before the next attempt after workers found no room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a window has shown, as shares of its time from 0 to 1."""

    learner_idle: float  # the learner waited for a batch
    batch_ready: float  # a complete batch waited for the learner
    rollout_idle: float  # an engine had nothing to generate


class AutoscalePolicy:
    """The wanted number of workers from the loads of successive windows. Pure: no clock and no processes.

    Example with 1 to 8 workers: two workers and a learner idle for 60% of two windows give `ceil(2 / 0.4)` = 5, but not
    more than twice the number: 4.
    """

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self._most = most
        self.forget()

    def forget(self) -> None:
        """The number of workers has changed: what was seen before does not count."""
        self._up = self._down = 0

    def wanted(self, load: Load, workers: int) -> int:
        """The number of workers after a window with `load` and `workers` that served all the time."""
        starved = load.learner_idle > UP_IDLE and workers < self._most
        self._up = self._up + 1 if starved else 0
        needed = workers * (1.0 - load.rollout_idle)
        idle = load.learner_idle < DOWN_IDLE and load.batch_ready > FULL and needed <= FULL * (workers - 1)
        self._down = self._down + 1 if idle and workers > self.least else 0
        if self._up >= UP_WINDOWS:
            enough = math.ceil(workers / max(1e-9, 1.0 - load.learner_idle))
            return min(self._most, 2 * workers, max(enough, workers + 1))
        return workers - 1 if self._down >= DOWN_WINDOWS else workers


class Autoscaler:
    """Measures the load, and scales the fleet as the policy wants."""

    def __init__(
        self,
        policy: AutoscalePolicy,
        fleet: Fleet,
        *,
        window_s: float,
        start_s: float,
        on_event: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`window_s`: seconds of settled time over which shares are averaged. `start_s`: seconds in which workers that
        were added must serve, with the boot of their nodes."""
        self._policy = policy
        self._fleet = fleet
        self._window_s = window_s
        self._start_s = start_s
        self._event = on_event
        self._clock = clock
        self._last = self._settled_at = clock()
        self._hold_until = float("-inf")
        self._engines: dict[str, tuple[float, float]] = {}  # worker -> idle and busy seconds when last seen
        self._reset()

    def _reset(self) -> None:
        self._seconds = self._waited = self._ready = self._idle = self._busy = 0.0

    def scale(self, workers: int, by: str) -> int:
        """Refuse `r1ray scale`. Raises ConfigError."""
        raise ConfigError(
            "rollout.autoscale decides the number of rollout workers of this run: resume it with another "
            "rollout.autoscale.min and .max, or with null for both"
        )

    def look(self, progress: Progress, *, evaluating: bool) -> None:
        """Sample the load. Called several times a second."""
        ledger, stage = progress.ledger, progress.stage
        self.tick(
            waiting=stage is Stage.BATCH,
            ready=ledger is not None and ledger.ready >= ledger.settings.groups_per_step,
            quiet=stage in (Stage.BATCH, Stage.STEP, Stage.SYNC) and not evaluating and not progress.pausing,
        )

    def tick(self, *, waiting: bool, ready: bool, quiet: bool) -> None:
        """`waiting`: the learner waits for a batch.

        `ready`: there is one. `quiet`: the time since the last tick counts.
        """
        now = self._clock()
        elapsed, self._last = now - self._last, now
        members = self._fleet.members
        serving = sum(m.health.state is State.HEALTHY and m.drain is None for m in members.values())
        engines = {n: (m.stats["idle_s"], m.stats["busy_s"]) for n, m in members.items() if "idle_s" in m.stats}
        if serving < self._fleet.desired and now - self._settled_at > self._start_s:
            self._give_up(serving, now)
        if serving >= self._fleet.desired:
            self._settled_at = now
        if quiet and len(members) == serving == self._fleet.desired:
            self._seconds += elapsed
            self._waited += elapsed * waiting
            self._ready += elapsed * ready
            for name, (idle, busy) in engines.items():
                before = self._engines.get(name, (idle, busy))
                self._idle += idle - before[0]
                self._busy += busy - before[1]
        self._engines = engines
        if self._seconds >= self._window_s:
            self._decide(serving, now)

    def _decide(self, workers: int, now: float) -> None:
        load = Load(
            learner_idle=self._waited / self._seconds,
            batch_ready=self._ready / self._seconds,
            rollout_idle=self._idle / max(1e-9, self._idle + self._busy),
        )
        self._reset()
        wanted = self._policy.wanted(load, workers)
        if wanted == workers or (wanted > workers and now < self._hold_until):
            return
        seen = f"learner idle {share(load.learner_idle)}, rollout idle {share(load.rollout_idle)}"
        self._fleet.scale(wanted, f"rollout.autoscale: {seen}")
        self._policy.forget()
        self._settled_at = now

    def _give_up(self, serving: int, now: float) -> None:
        """Workers that were added do not serve in time: the cluster has no room for them."""
        self._settled_at, self._hold_until = now, now + COOL_DOWN_S
        if serving == 0:  # the fleet's own deadlines and budgets are for that
            return
        self._event("autoscale_gave_up", wanted=self._fleet.desired, serving=serving, seconds=self._start_s)
        self._fleet.scale(max(self._policy.least, serving), "rollout.autoscale: no room for more")
        self._policy.forget()
        self._reset()


def autoscaler_of(config: Config, fleet: Fleet, on_event: Callable[..., None]) -> Autoscaler | None:
    """The autoscaler of a run; None if `rollout.autoscale` is null."""
    bounds = config.rollout.autoscale
    if bounds.min is None or bounds.max is None:
        return None
    policy = AutoscalePolicy(bounds.min, bounds.max)
    start_s = 2 * config.deadlines.actor_start_s
    return Autoscaler(policy, fleet, window_s=bounds.window_s, start_s=start_s, on_event=on_event)
