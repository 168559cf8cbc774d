"""Starts that fail for every worker in the same way, under an injected clock."""

from __future__ import annotations

import pickle

import pytest

from r1ray.control.start_failures import StartFailures
from r1ray.errors import DeadlineExceeded, ProcessDied, RetryBudgetExhausted, WorkersCannotStart, note_node
from tests.unit.fleet_support import World


def fail_all(world: World, error: str) -> None:
    """Every worker that is starting fails; then time passes until the next ones start."""
    for name in list(world.fleet.members):
        world.readies[name].set_exception(TypeError(f"{error} at 0x7f{len(name)}"))
    world.fleet.tick()
    world.after(60.0)


def test_the_first_failure_is_an_event_with_its_type_and_text() -> None:
    world = World(workers=1)
    world.readies["rollout-0"].set_exception(TypeError("EngineArgs got an unexpected keyword argument 'max_seqs'"))
    world.fleet.tick()
    (lost,) = [fields for kind, fields in world.events if kind == "worker_lost"]
    assert lost["reason"] == "did not start: TypeError: EngineArgs got an unexpected keyword argument 'max_seqs'"
    assert world.released == [("rollout-0", False)]
    world.after(1.0)
    assert set(world.fleet.members) == {"rollout-1"}


@pytest.mark.parametrize(("workers", "rounds"), [(1, 3), (2, 2), (3, 2)])
def test_the_same_failure_of_all_workers_ends_the_run_after_a_few_tries(workers: int, rounds: int) -> None:
    world = World(workers=workers, budget=99)
    for _ in range(rounds - 1):
        fail_all(world, "no such engine argument")
    with pytest.raises(WorkersCannotStart, match=r"TypeError: no such engine argument.*logs/rollout-\d+\.log"):
        fail_all(world, "no such engine argument")
    assert world.kinds().count("worker_lost") == workers * rounds


def fail_on(world: World, node: str) -> None:
    """The only worker fails on `node`, with an error that has travelled as Ray sends it."""
    error = ValueError("Unknown load format: bitsandbyte")
    note_node(error, node)
    (name,) = world.fleet.members
    world.readies[name].set_exception(pickle.loads(pickle.dumps(error)))


def test_the_nodes_of_the_failures_are_named() -> None:
    world = World(workers=1, budget=99)
    for node in ("10.0.0.2", "10.0.0.3"):
        fail_on(world, node)
        world.fleet.tick()
        world.after(60.0)
    fail_on(world, "10.0.0.2")
    with pytest.raises(
        WorkersCannotStart, match=r"3 attempts .* on nodes 10\.0\.0\.2, 10\.0\.0\.3 with ValueError: Unk"
    ):
        world.fleet.tick()
    lost = [fields["reason"] for kind, fields in world.events if kind == "worker_lost"]
    assert lost[1] == "did not start: ValueError: Unknown load format: bitsandbyte (on node 10.0.0.3)"


def test_failures_that_differ_are_bounded_by_the_budget_alone() -> None:
    world = World(workers=1, budget=5)
    for i in range(5):
        fail_all(world, "abcde"[i])
    with pytest.raises(RetryBudgetExhausted, match="max_worker_restarts=5"):
        fail_all(world, "f")


def test_once_a_worker_was_ready_later_failures_have_other_causes() -> None:
    world = World(workers=2, budget=9)
    world.ready("rollout-0")
    for _ in range(5):
        failing = next(name for name in world.fleet.members if name != "rollout-0")
        world.readies[failing].set_exception(RuntimeError("no free GPU"))
        world.fleet.tick()
        world.after(60.0)
    assert "rollout-0" in world.fleet.members


@pytest.mark.parametrize("error", [ProcessDied("killed"), DeadlineExceeded("not ready after 300 s")])
def test_deaths_and_deadlines_are_not_counted(error: Exception) -> None:
    failures = StartFailures()
    for _ in range(9):
        failures.failed("rollout-0", error, workers=1)
