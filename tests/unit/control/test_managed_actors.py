"""The actors that Ray restarts, under an injected clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from r1ray.control.health import HealthLimits
from r1ray.control.managed_actors import Budget, RayManagedActors
from r1ray.errors import RetryBudgetExhausted
from tests.unit.scripted import FakeHandle


class World:
    """A queue whose process and time the test moves by hand."""

    def __init__(self, restarts: int = 2) -> None:
        self.now = 0.0
        self.pid = 1
        self.problem: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.killed = 0
        self.queue = FakeHandle("queue", identity=lambda: {"pid": self.pid, "node": "n", "problem": self.problem})
        self.queue.kill = self._kill  # type: ignore[method-assign]
        self.managed = RayManagedActors(
            [(Budget(restarts=restarts, key="recovery.max_queue_restarts"), [self.queue])],
            limits=HealthLimits(start_s=50, suspect_s=5, dead_s=10),
            on_event=lambda kind, **fields: self.events.append((kind, fields)),
            clock=lambda: self.now,
        )
        self.after(0)

    def _kill(self) -> None:
        self.killed += 1

    def after(self, seconds: float) -> None:
        """Time for a question and for its answer."""
        self.now += seconds
        self.managed.tick()
        self.managed.tick()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]


def test_another_process_id_is_a_death_that_ray_has_repaired() -> None:
    world = World()
    assert world.managed.states() == {"queue": ("healthy", 1)}
    world.pid = 2
    world.after(1.5)
    assert world.kinds() == ["actor_ready", "actor_lost", "actor_ready"]
    assert world.managed.states() == {"queue": ("healthy", 2)}


def test_one_that_hangs_is_ended_and_has_the_time_of_a_start_to_come_back() -> None:
    world = World()
    world.queue.hold.add("identity")
    world.after(1.5)
    world.after(6)
    assert world.managed.states()["queue"][0] == "suspect"
    world.after(6)
    assert world.killed == 1
    assert world.managed.states()["queue"] == ("starting", None)
    world.after(40)
    assert world.killed == 1
    world.queue.hold.clear()
    world.pid = 2
    world.after(15)
    assert world.killed == 2
    world.after(2)
    assert world.managed.states() == {"queue": ("healthy", 2)}


def test_deaths_without_a_step_in_between_spend_the_budget() -> None:
    world = World(restarts=2)
    for pid in (2, 3):
        world.pid = pid
        world.after(1.5)
    world.managed.succeeded()
    for pid in (4, 5):
        world.pid = pid
        world.after(1.5)
    world.pid = 6
    with pytest.raises(RetryBudgetExhausted, match=r"recovery.max_queue_restarts=2"):
        world.after(1.5)


def test_where_each_is_and_what_keeps_it_from_its_work_are_known() -> None:
    world = World()
    assert world.managed.places == {"queue": {"pid": 1, "node": "n"}}
    assert world.managed.problem is None
    world.problem = "no room left to write"
    world.after(1.5)
    assert world.managed.problem == "queue: no room left to write"
    world.pid, world.problem = 2, None
    world.after(1.5)
    assert world.managed.problem is None


def test_a_restart_ends_those_that_answer_and_is_counted() -> None:
    world = World(restarts=1)
    world.managed.restart("nothing moved for 60 s")
    assert world.killed == 1
    assert world.managed.states() == {"queue": ("starting", None)}
    world.managed.restart("nothing moved for 60 s")  # it starts already
    assert world.killed == 1
    world.pid = 2
    world.after(0)
    assert world.managed.states() == {"queue": ("healthy", 2)}
    with pytest.raises(RetryBudgetExhausted, match=r"recovery.max_queue_restarts=1 for each\).*queue: nothing moved"):
        world.managed.restart("nothing moved for 60 s")


def test_one_that_dies_again_and_again_is_started_ever_more_slowly() -> None:
    world = World(restarts=20)
    world.queue.dead = True
    died: list[float] = []
    while len(died) < 20:
        world.after(0.25)
        died += [world.now] * (world.killed - len(died))
    pauses = [later - earlier for earlier, later in pairwise(died)]
    assert pauses[:5] == [0.25, 1.0, 2.0, 4.0, 8.0]
    assert max(pauses) == 60.0
    assert died[-1] > 600.0  # recovery.outage_timeout_s, within recovery.max_queue_restarts=20


def test_a_step_lets_the_next_death_be_repaired_at_once() -> None:
    world = World(restarts=20)
    world.queue.dead = True
    while world.killed < 5:
        world.after(0.25)
    world.queue.dead = False
    world.after(60.0)
    world.managed.succeeded()
    world.queue.dead = True
    world.after(1.5)
    assert world.killed == 6
