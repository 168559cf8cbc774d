"""A discrete-event model of rollout workers and a learner that drive the real ledger: which prompts are trained, at
what cost.

    python -m tests.unit.ledger_simulation        prints the table of docs/design.md

The unit of time is a training step of a learner that never waits. A group occupies one slot of its worker until it is
scored, even if it is too old by then. All workers get new weights when a step ends; groups in flight continue under
them, so a group's staleness counts from its lease.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from r1ray.ledger import Ledger, LedgerReader, LedgerSettings, audit
from tests.unit.ledger_support import Clock, fast_folder, payload, rules

STEPS, SIZE, SLOTS = 60, 8, 8
SETTLED = (STEPS - 8) * SIZE
"""Prompts leased in the last steps may still be in flight at the end, so shares are of the first `SETTLED` prompts."""

Duration = Callable[[int, int], float]
"""(prompt index, attempt) -> training steps from the lease to the score."""


def one_slow_prompt_in_64(index: int, attempt: int) -> float:
    """One prompt in 64 takes four steps at every attempt, the others 0.4 to 0.9."""
    return 4.0 if index % 64 == 40 else random.Random(f"{index}-{attempt}").uniform(0.4, 0.9)


def long_tail(index: int, attempt: int) -> float:
    """Lognormal around 0.6 steps, at most 4; the prompt has one half of the variance, the sample the other."""
    of_prompt, of_sample = random.Random(index).gauss(0, 1), random.Random(f"{index}-{attempt}").gauss(0, 1)
    return min(4.0, 0.6 * 2.0 ** (0.5 * (of_prompt + of_sample)))


@dataclass(frozen=True)
class Scenario:
    """A workload on two workers of the given relative speeds."""

    name: str
    duration: Duration
    speeds: tuple[float, ...] = (1.0, 1.0)


@dataclass(frozen=True)
class Policy:
    """What happens to a prompt whose group is too old to be trained."""

    name: str
    changes: dict[str, object]  # of the ledger's settings
    continues: bool = False  # cut a group that got too old and continue it under the new policy


@dataclass(frozen=True)
class InFlight:
    """A leased group, ordered by the time at which it ends."""

    ends: float
    group_id: str
    index: int
    worker: int
    version: int  # of the policy at its lease
    began: float
    lasts: float  # without what an earlier, cut attempt did

    def __lt__(self, other: InFlight) -> bool:
        return (self.ends, self.group_id) < (other.ends, other.group_id)


@dataclass
class Simulation:
    """One run on a ledger of its own. Times in training steps, shares between 0 and 1."""

    scenario: Scenario
    policy: Policy
    clock: Clock = field(default_factory=Clock)
    step: int = 0
    version: int = 0
    learner_ends: float = 0.0
    flying: list[InFlight] = field(default_factory=list)  # a heap
    kept: dict[int, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # prompt index -> time that cut attempts have done
    waited: float = 0.0  # of the learner, for batches
    engine: dict[int, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # prompt index -> slot time of its finished or cut groups
    untrained: float = 0.0  # slot time of groups that were dropped
    leases: Counter[int] = field(default_factory=Counter)  # prompt index -> how often it was leased
    lengths: dict[int, float] = field(default_factory=dict)  # prompt index -> duration of the first attempt
    trained: dict[int, float] = field(default_factory=dict)  # prompt index -> duration of the trained group
    oldest: int = 0  # staleness of the stalest group that was trained
    elapsed: float = 0.0

    @property
    def settings(self) -> LedgerSettings:
        return rules(groups_per_step=SIZE, lease_timeout_s=1e9, **self.policy.changes)

    def run(self) -> Simulation:
        """Train `STEPS` steps. Raises AssertionError if nothing can go on, or if the audit finds a violation."""
        began = self.learner_ends = self.clock.now
        with fast_folder() as folder:
            with closing(
                Ledger.create(folder / "ledger.sqlite", self.settings, run_id="r", clock=self.clock)
            ) as ledger:
                while self.step < STEPS:
                    idle = self.clock.now >= self.learner_ends
                    if idle:
                        self.version = self.step
                    self.lease(ledger)
                    if not (idle and self.train(ledger)):
                        self.advance(ledger, until=inf if idle else self.learner_ends)
            self.read_drops(folder)
            assert audit(folder, [0]).ok
        self.elapsed = self.learner_ends - began
        return self

    def lease(self, ledger: Ledger) -> None:
        for worker, speed in enumerate(self.scenario.speeds):
            free = SLOTS - sum(g.worker == worker for g in self.flying)
            for x in ledger.lease(f"w{worker}", self.version, free):
                self.leases[x.index] += 1
                whole = self.scenario.duration(x.index, 1 if self.policy.continues else x.attempt)
                self.lengths.setdefault(x.index, whole)
                lasts, now = (whole - self.kept[x.index]) / speed, self.clock.now
                heapq.heappush(
                    self.flying, InFlight(now + lasts, x.group_id, x.index, worker, self.version, now, lasts)
                )

    def train(self, ledger: Ledger) -> bool:
        manifest = ledger.take(self.step)
        if manifest is None:
            return False
        self.waited += self.clock.now - self.learner_ends
        self.learner_ends = self.clock.now + 1.0
        self.oldest = max(self.oldest, *(self.step - g.min_policy_version for g in manifest.groups))
        for g in manifest.groups:
            attempt = 1 if self.policy.continues else int(g.group_id.split("-")[1])
            self.trained[g.index] = self.scenario.duration(g.index, attempt)
        self.step += 1
        if self.policy.continues:
            self.cut(ledger)
        return True

    def cut(self, ledger: Ledger) -> None:
        """Give back the groups that the next step could not train; their prompts continue from what is kept."""
        for g in [g for g in self.flying if self.step - g.version > self.settings.max_staleness]:
            ledger.fail(g.group_id, "cut", infrastructure=True)
            self.kept[g.index] += self.clock.now - g.began
            self.engine[g.index] += self.clock.now - g.began
            self.flying.remove(g)
        heapq.heapify(self.flying)

    def advance(self, ledger: Ledger, until: float) -> None:
        """To the next event: a group is scored, or the learner's step ends at `until`."""
        assert self.flying or until < inf, "nothing is in flight, and no batch is ready"
        if self.flying and self.flying[0].ends <= until:
            g = heapq.heappop(self.flying)
            self.clock.now = g.ends
            self.engine[g.index] += g.lasts
            ledger.put(payload(g.group_id, version=g.version))
        else:
            self.clock.now = until

    def read_drops(self, folder: Path) -> None:
        with closing(LedgerReader.open(folder / "ledger.sqlite")) as reader:
            dropped = [g for g in reader.groups(state="dropped") if g.reason == "stale"]
        speeds = self.scenario.speeds
        self.untrained = sum(self.scenario.duration(g.index, g.attempt) / speeds[int(g.worker_id[1:])] for g in dropped)

    # -- shares

    def slow(self) -> set[int]:
        """The settled prompts of the longest quarter by their first attempt; of fixed lengths only the slow ones."""
        settled = {i: lasts for i, lasts in self.lengths.items() if i < SETTLED}
        if self.scenario.duration is one_slow_prompt_in_64:
            return {i for i, lasts in settled.items() if lasts == 4.0}
        longest = sorted(settled, key=lambda i: settled[i], reverse=True)
        return set(longest[: len(longest) // 4])

    @property
    def slow_trained(self) -> float:
        return statistics.fmean(i in self.trained for i in self.slow())

    @property
    def length_ratio(self) -> float:
        """Mean duration of the trained groups over that of all first attempts; below 1: long answers are left out."""
        settled = [lasts for i, lasts in self.lengths.items() if i < SETTLED]
        return statistics.fmean(lasts for i, lasts in self.trained.items() if i < SETTLED) / statistics.fmean(settled)

    @property
    def slow_engine(self) -> float:
        return sum(self.engine[i] for i in self.slow()) / sum(self.engine.values())

    @property
    def untrained_engine(self) -> float:
        return self.untrained / sum(self.engine.values())


SCENARIOS = (
    Scenario("1 of 64 takes 4 steps", one_slow_prompt_in_64),
    Scenario("long tail", long_tail),
    Scenario("long tail, a worker at a tenth of its speed", long_tail, speeds=(1.0, 0.1)),
)
POLICIES = (
    Policy("requeue without end", {"reserve_after_stale": 10**6}),
    Policy("drop", {"stale_policy": "drop"}),
    Policy("reserve after 2", {"reserve_after_stale": 2}),
    Policy("**reserve after 1**", {"reserve_after_stale": 1}),
    Policy("reserve at once", {"reserve_after_stale": 0}),
    Policy("continue from kept tokens", {"reserve_after_stale": 10**6}, continues=True),
)


def table_row(s: Simulation) -> str:
    """One line of the table in docs/design.md."""
    cells = (
        s.scenario.name,
        s.policy.name,
        f"{s.slow_trained:.0%}",
        f"{s.length_ratio:.2f}",
        f"{s.untrained_engine:.0%}",
        f"{s.slow_engine:.0%}",
        str(max(s.leases.values())),
        f"{s.elapsed:.1f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    for scenario in SCENARIOS:
        for policy in POLICIES:
            print(table_row(Simulation(scenario, policy).run()))
