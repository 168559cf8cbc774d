"""Simulation of a run's pipeline: engines with long-tailed completions, the queue, the learner, syncs and losses.

All sequences of an engine get one token per engine step, so an engine is a counter of steps: a completion of L tokens
ends L steps after it began, and only the number of sequences changes the length of a step. The simulation is exact in
that model, and its cost is one event per completion: 10,000 GPUs take seconds.

    lease (bound of staleness) -> decode -> group scored -> batch of B groups -> training -> sync -> version + 1
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque

from r1ray.planning.rates import Rates
from r1ray.planning.scenario import HOUR, Outcome, Scenario, log_normal, mean
from r1ray.planning.state import Engine, Group


def simulate(rates: Rates, scenario: Scenario) -> Outcome:
    """Simulate `scenario.steps` training steps."""
    return _Simulation(rates, scenario).run()


class _Simulation:
    def __init__(self, rates: Rates, scenario: Scenario) -> None:
        config = rates.config
        self.rates, self.scenario, self.config = rates, scenario, config
        self.rng = random.Random(scenario.seed)
        self.size, self.bound = config.learner.groups_per_step, config.queue.max_staleness
        self.context = scenario.prompt_tokens + scenario.mean_tokens / 2
        self.slots = rates.slots(self.context)
        self._step_s = [0.0] + [rates.engine_step_s(n, self.context) for n in range(1, self.slots + 1)]
        slow = round(scenario.slow_share * config.rollout.workers)
        self.engines = [Engine(speed=0.5 if i < slow else 1.0) for i in range(config.rollout.workers)]
        self.events: list[tuple[float, int, str, int]] = []
        self.numbers = itertools.count(1)
        self.now, self.step, self.version, self.admitted = 0.0, 0, 0, 0
        self.ready: list[Group] = []
        self.again: deque[Group] = deque()
        self.training, self.learner_event, self.learner_left, self.learner_at = False, 0, 0.0, 0.0
        self.factor, self.waited_since = 1.0, 0.0
        self.batch: list[Group] = []
        self.records: list[tuple[float, int, float, float]] = []  # end, tokens, waited, staleness of each step
        self.since_checkpoint = 0.0
        self.stale = self.lost_engines = self.lost_learners = 0

    def run(self) -> Outcome:
        self._fill_all()
        for i in range(len(self.engines)):
            self._plan_loss(i)
        self._plan_learner_loss()
        marks = self._marks()
        while self.step < self.scenario.steps:
            self.now, number, kind, i = heapq.heappop(self.events)
            if kind == "token" and number == self.engines[i].event:
                self._tokens(i)
            elif kind == "learner" and number == self.learner_event:
                self._trained()
                if self.step == self.scenario.steps // 4:
                    marks = self._marks()
            elif kind == "lost":
                self._lose(i)
            elif kind == "back":
                self.engines[i].alive, self.engines[i].at = True, self.now
                self._fill(i)
            elif kind == "learner lost":
                self._lose_learner()
            self._take()
            self._repace()
        return self._outcome(marks)

    # -- engines ------------------------------------------------------------------------------------------------

    def _length(self) -> int:
        s, limit = self.scenario, self.config.rollout.max_new_tokens
        if s.lengths:
            return min(limit, self.rng.choice(s.lengths))
        return max(1, min(limit, round(self.rng.lognormvariate(*log_normal(s.mean_tokens, s.spread)))))

    def _advance(self, engine: Engine) -> None:
        passed = self.now - engine.at
        if passed > 0:
            if engine.running:
                engine.done += passed * engine.speed / (self._step_s[engine.running] * self.factor)
                engine.busy_s += passed
            engine.at = self.now

    def _schedule(self, i: int) -> None:
        engine = self.engines[i]
        if engine.ends:
            left = max(0.0, engine.ends[0][0] - engine.done)
            engine.event = next(self.numbers)
            at = max(self.now, engine.at) + left * self._step_s[engine.running] * self.factor / engine.speed
            heapq.heappush(self.events, (at, engine.event, "token", i))

    def _lease(self, engine: Engine) -> bool:
        """Give an engine one group, within its room and the bound of staleness; whether there was one."""
        rollout = self.config.rollout
        taken = engine.running + len(engine.waiting) + rollout.group_size
        if not engine.alive or taken > rollout.groups_in_engine * rollout.group_size:
            return False
        if self.again:
            group = self.again.popleft()
        elif self.admitted < (self.bound + self.version + 1) * self.size:
            group = Group(lengths=[self._length() for _ in range(rollout.group_size)])
        else:
            return False
        self.admitted += 1
        group.version, group.left = self.version, len(group.lengths)
        engine.groups[id(group)] = group
        engine.waiting.extend((length, group) for length in group.lengths)
        return True

    def _fill_all(self) -> None:
        """New room for all engines: they lease by turns."""
        engines = list(self.engines)
        while engines:
            engines = [engine for engine in engines if self._lease(engine)]
        for i in range(len(self.engines)):
            self._fill(i)

    def _fill(self, i: int) -> None:
        """Lease groups, and start what the engine has room for."""
        engine = self.engines[i]
        self._advance(engine)
        while self._lease(engine):
            pass
        while engine.waiting and engine.running < self.slots:
            length, group = engine.waiting.popleft()
            heapq.heappush(engine.ends, (engine.done + length, next(self.numbers), group))
            engine.running += 1
        self._schedule(i)

    def _tokens(self, i: int) -> None:
        """Some sequences of an engine end."""
        engine = self.engines[i]
        self._advance(engine)
        while engine.ends and engine.ends[0][0] <= engine.done + 1e-6:
            group = heapq.heappop(engine.ends)[2]
            engine.running -= 1
            group.left -= 1
            if group.left == 0:
                del engine.groups[id(group)]
                self.ready.append(group)
        self._fill(i)

    # -- learner ------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Begin a training step if a batch is there: the oldest policies first; what is too old is generated again."""
        if self.training or len(self.ready) < self.size:
            return
        old = [g for g in self.ready if self.step - g.version > self.bound]
        if old:
            self.ready = [g for g in self.ready if self.step - g.version <= self.bound]
            self._return(old, reserved=True)
            self.stale += len(old)
        flying = (g for e in self.engines for g in e.groups.values() if g.reserved)
        if len(self.ready) < self.size or any(g.version + self.bound <= self.step for g in flying):
            return
        self.ready.sort(key=lambda g: (not g.reserved, g.version))
        self.batch, self.ready = self.ready[: self.size], self.ready[self.size :]
        tokens = sum(map(sum, (g.lengths for g in self.batch)))
        prompts = self.size * self.scenario.prompt_tokens
        if self.config.learner.shared_prompts is False or self.config.learner.num_gpus:
            prompts *= self.config.rollout.group_size
        self._learn(self.rates.training_s(tokens + prompts, self.context) + self._after_step_s())
        self.records.append(
            (0.0, tokens, self.now - self.waited_since, mean([self.step - g.version for g in self.batch]))
        )

    def _after_step_s(self) -> float:
        due = (self.step + 1) % self.config.checkpoint.every_steps == 0
        return self.rates.sync_s() + (self.rates.checkpoint_s() if due else 0.0)

    def _learn(self, seconds: float) -> None:
        self.training, self.learner_left, self.learner_at = True, seconds, self.now
        self._schedule_learner()

    def _schedule_learner(self) -> None:
        self.learner_event = next(self.numbers)
        at = self.learner_at + self.learner_left * self.factor
        heapq.heappush(self.events, (at, self.learner_event, "learner", -1))

    def _trained(self) -> None:
        """The step and its sync are done: every engine serves the new policy, and may compute its KV cache again."""
        self.training, self.waited_since = False, self.now
        if self.batch:
            self.batch = []
            self.since_checkpoint += self.now - (self.records[-2][0] if len(self.records) > 1 else 0.0)
            if (self.step + 1) % self.config.checkpoint.every_steps == 0:
                self.since_checkpoint = 0.0
            self.step += 1
            self.version = self.step
            self.records[-1] = (self.now, *self.records[-1][1:])
        for engine in self.engines:
            self._advance(engine)
            if engine.running and self.config.sync.kv_cache == "recompute":
                engine.at += self.rates.prefill_s(engine.running * self.context, self.context)
        self._fill_all()

    # -- losses -------------------------------------------------------------------------------------------------

    def _plan_loss(self, i: int) -> None:
        hosts = max(1.0, self.rates.engine_devices() / self.config.hardware.per_node)
        rate = sum(hosts / (h * HOUR) for h in (self.scenario.mtbf_hours, self.scenario.spot_hours) if h)
        if rate:
            heapq.heappush(self.events, (self.now + self.rng.expovariate(rate), next(self.numbers), "lost", i))

    def _plan_learner_loss(self) -> None:
        if self.scenario.mtbf_hours:
            hosts = max(1.0, self.config.learner.ranks * self.rates.learner_devices() / self.config.hardware.per_node)
            at = self.now + self.rng.expovariate(hosts / (self.scenario.mtbf_hours * HOUR))
            heapq.heappush(self.events, (at, next(self.numbers), "learner lost", -1))

    def _lose(self, i: int) -> None:
        """An engine dies: its groups are leased again, and another process takes its place."""
        engine = self.engines[i]
        self._plan_loss(i)
        if not engine.alive:
            return
        self._advance(engine)
        self._return(list(engine.groups.values()), reserved=False)
        engine.groups.clear()
        engine.ends.clear()
        engine.waiting.clear()
        engine.running, engine.alive, engine.event = 0, False, 0
        self.lost_engines += 1
        heapq.heappush(self.events, (self.now + self.rates.restart_s(), next(self.numbers), "back", i))

    def _lose_learner(self) -> None:
        """The learner starts from its newest checkpoint and trains the same groups again."""
        self._plan_learner_loss()
        self.lost_learners += 1
        left = self.learner_left - (self.now - self.learner_at) / self.factor if self.training else 0.0
        self._learn(max(0.0, left) + self.rates.restart_s() + self.since_checkpoint)

    def _return(self, groups: list[Group], *, reserved: bool) -> None:
        self.admitted -= len(groups)
        for group in groups:
            group.reserved |= reserved
            self.again.append(group)
        if groups:
            self._fill_all()

    # -- shared cores -------------------------------------------------------------------------------------------

    def _repace(self) -> None:
        """Without devices of their own, all processes slow down while more of them work than there are cores."""
        if self.scenario.cores is None:
            return
        busy = sum(e.running > 0 for e in self.engines) + self.training * self.config.learner.ranks
        factor = max(1.0, busy / self.scenario.cores)
        if factor != self.factor:
            for engine in self.engines:
                self._advance(engine)
            if self.training:
                self.learner_left -= (self.now - self.learner_at) / self.factor
                self.learner_at = self.now
            self.factor = factor
            for i in range(len(self.engines)):
                self._schedule(i)
            if self.training:
                self._schedule_learner()

    # -- results ------------------------------------------------------------------------------------------------

    def _marks(self) -> tuple[int, float, float]:
        return len(self.records), self.now, sum(e.busy_s for e in self.engines)

    def _outcome(self, marks: tuple[int, float, float]) -> Outcome:
        first, began, busy = marks
        records = [r for r in self.records[first:] if r[0]]
        passed = max(1e-9, self.now - began)
        return Outcome(
            step_s=passed / max(1, len(records)),
            tokens_s=sum(r[1] for r in records) / passed,
            learner_idle=sum(r[2] for r in records) / passed,
            rollout_idle=1 - (sum(e.busy_s for e in self.engines) - busy) / (passed * len(self.engines)),
            staleness=mean([r[3] for r in records]),
            stale_groups=self.stale,
            lost_engines=self.lost_engines,
            lost_learners=self.lost_learners,
        )
