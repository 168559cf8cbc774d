"""The fleet under an injected clock, with fake workers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from r1ray.errors import ConfigError, RetryBudgetExhausted
from tests.unit.fleet_support import World


def test_workers_start_get_ready_and_serve_after_a_sync() -> None:
    world = World()
    assert set(world.fleet.members) == {"rollout-0", "rollout-1"}
    assert world.fleet.alive() == {}
    world.ready("rollout-0", "rollout-1")
    assert world.fleet.unsynced() == ["rollout-0", "rollout-1"]
    assert world.fleet.evaluation_sizes() == {"heldout": 7}
    assert [f["left_out"]["a"] for kind, f in world.events if kind == "worker_ready"] == [{"too_long": 2}] * 2
    world.fleet.synced(("rollout-0",), 3)
    assert set(world.fleet.serving()) == {"rollout-0"}
    assert world.fleet.members["rollout-0"].version == 3


def test_a_dead_worker_hands_back_its_leases_and_is_replaced() -> None:
    world = World()
    world.ready("rollout-0", "rollout-1")
    world.remotes["rollout-1"].dead = True
    world.after(1.0)  # asks
    world.after(0.1)  # hears
    assert world.released == [("rollout-1", False)]
    assert set(world.fleet.members) == {"rollout-0", "rollout-2"}


def with_silent_worker() -> World:
    """Two workers that serve policy 1; rollout-0 has stopped to answer health checks."""
    world = World()
    world.ready("rollout-0", "rollout-1")
    world.fleet.synced(("rollout-0", "rollout-1"), 1)
    world.remotes["rollout-0"].hold.add("stats")
    world.after(1.0)
    return world


def test_a_silent_worker_is_left_out_of_syncs_and_then_killed() -> None:
    world = with_silent_worker()
    world.after(5.0)
    assert set(world.fleet.alive()) == set(world.fleet.serving()) == {"rollout-1"}
    assert not world.remotes["rollout-0"].dead
    world.after(6.0)
    assert "rollout-0" not in world.fleet.members
    assert world.remotes["rollout-0"].dead
    assert "deadlines.rpc_s" in world.events[-2][1]["reason"]


def test_a_sync_that_passed_a_silent_worker_by_leaves_it_unsynced() -> None:
    world = with_silent_worker()
    held = world.remotes["rollout-0"].pending[-1]
    world.after(5.0)
    world.fleet.synced(("rollout-1",), 2)
    held.set_result({"tokens": 0.0, "stuck_s": 0.0, "warm": 1.0, "short_of_memory": 0.0})
    world.after(0.1)
    assert world.fleet.unsynced() == ["rollout-0"]
    assert world.fleet.members["rollout-0"].version == 1


def test_an_engine_that_hangs_in_a_step_ends_its_worker() -> None:
    world = World()
    world.ready("rollout-0", "rollout-1")
    world.stats["rollout-0"]["stuck_s"] = 11.0
    world.after(1.0)
    world.after(0.1)
    assert world.released == [("rollout-0", False)]


def test_a_first_step_in_which_kernels_are_compiled_is_not_stuck() -> None:
    world = World()
    world.ready("rollout-0", "rollout-1")
    for stuck_s, released in ((11.0, []), (101.0, [("rollout-0", False)])):
        world.stats["rollout-0"] |= {"stuck_s": stuck_s, "warm": 0.0}
        world.after(1.1)
        world.after(0.1)
        assert world.released == released


def test_a_worker_that_never_gets_ready_is_replaced() -> None:
    world = World(workers=1)
    world.after(101.0)
    assert set(world.fleet.members) == {"rollout-1"}


def test_deaths_in_a_row_spend_the_budget_and_a_worker_that_generates_resets_it() -> None:
    world = World(workers=1, budget=2)
    world.after(101.0)
    world.after(101.0)
    world.ready("rollout-2")
    world.stats["rollout-2"]["tokens"] = 5.0
    world.after(1.0)
    world.after(0.1)
    world.fleet.lost("rollout-2", "x")
    world.fleet.tick()
    world.after(101.0)
    with pytest.raises(RetryBudgetExhausted, match=r"recovery.max_worker_restarts=2"):
        world.after(101.0)


def test_what_every_worker_would_fail_of_ends_the_run() -> None:
    world = World(workers=1)
    world.readies["rollout-0"].set_exception(ConfigError("no such engine argument"))
    with pytest.raises(ConfigError, match="no such engine"):
        world.fleet.tick()


def test_left_out_of_a_sync_means_stale_until_a_whole_one() -> None:
    world = World(workers=1)
    world.ready("rollout-0")
    world.fleet.synced(("rollout-0",), 1)
    world.fleet.synced((), 2)
    world.fleet.missed("rollout-0", "peer died")
    assert world.fleet.unsynced() == ["rollout-0"]
    assert world.fleet.serving() == {}
    world.fleet.synced(("rollout-0",), 2)
    assert set(world.fleet.serving()) == {"rollout-0"}


def test_a_worker_that_misses_too_many_syncs_in_a_row_is_replaced() -> None:
    world = World(workers=1)
    world.ready("rollout-0")
    world.fleet.missed("rollout-0", "cannot reach the store")
    world.fleet.missed("rollout-0", "cannot reach the store")
    world.fleet.synced(("rollout-0",), 1)  # and what it missed before is forgiven
    world.fleet.missed("rollout-0", "cannot reach the store")
    world.fleet.missed("rollout-0", "cannot reach the store")
    assert set(world.fleet.members) == {"rollout-0"}
    world.fleet.missed("rollout-0", "cannot reach the store")
    world.fleet.tick()
    assert set(world.fleet.members) == {"rollout-1"}
    assert world.released == [("rollout-0", False)]
    (lost,) = [fields for kind, fields in world.events if kind == "worker_lost"]
    assert "recovery.max_missed_syncs" in lost["reason"]
    assert "cannot reach the store" in lost["reason"]


def test_missed_syncs_spend_the_budget_of_restarts() -> None:
    world = World(workers=1, budget=0)
    world.ready("rollout-0")
    world.fleet.missed("rollout-0", "cannot reach the store")
    world.fleet.missed("rollout-0", "cannot reach the store")
    with pytest.raises(
        RetryBudgetExhausted, match=r"recovery.max_worker_restarts=0 for each of 1\).*cannot reach the store"
    ):
        world.fleet.missed("rollout-0", "cannot reach the store")


def test_a_worker_that_missed_a_sync_is_not_at_once_synced_again_and_again() -> None:
    world = World(workers=1)
    world.ready("rollout-0")
    world.fleet.missed("rollout-0", "peer died")
    assert world.fleet.unsynced() == ["rollout-0"]
    world.fleet.missed("rollout-0", "peer died")
    assert world.fleet.unsynced() == []
    assert set(world.fleet.alive()) == {"rollout-0"}  # the sync after a step has it again
    world.now += 1.0
    assert world.fleet.unsynced() == ["rollout-0"]


def test_workers_that_die_again_and_again_are_replaced_ever_more_slowly() -> None:
    world = World(workers=1, budget=9)
    starts = [0.0]
    while len(starts) < 7:
        if world.fleet.members:
            world.fleet.lost(next(iter(world.fleet.members)), "no memory on the GPU")
        world.after(0.25)
        if world.fleet.members:
            starts.append(world.now)
    assert [later - earlier for earlier, later in pairwise(starts)] == [0.25, 0.25, 1.0, 2.0, 4.0, 8.0]
    (name,) = world.fleet.members
    world.ready(name)
    world.stats[name]["tokens"] = 5.0
    world.after(1.0)
    world.after(0.25)
    world.fleet.lost(name, "killed")
    world.fleet.tick()
    assert len(world.fleet.members) == 1  # it had generated something


def test_workers_that_die_together_are_replaced_together() -> None:
    world = World(workers=3, budget=9)
    for round_ in range(3):
        for name in list(world.fleet.members):
            world.fleet.lost(name, "its node is gone")
        world.after(60.0)
        assert len(world.fleet.members) == 3, round_


def test_a_host_that_takes_all_its_workers_along_spends_one_death_of_each() -> None:
    world = World(workers=3, budget=1)
    for name in list(world.fleet.members):
        world.fleet.lost(name, "its host is gone")
    world.after(60.0)
    first, *_ = world.fleet.members
    with pytest.raises(RetryBudgetExhausted, match=r"4 rollout workers in a row .*=1 for each of 3"):
        world.fleet.lost(first, "did not start")


def test_a_question_that_a_sync_has_passed_by_is_counted_from_then_on() -> None:
    world = World(workers=1)
    world.ready("rollout-0")
    world.remotes["rollout-0"].hold.add("stats")
    world.after(1.0)  # asks, and gets no answer any more
    world.fleet.synced(["rollout-0"], 0)
    for _ in range(12):
        world.after(1.0)
    assert ("worker_lost", "rollout-0") in [(kind, fields.get("worker")) for kind, fields in world.events]
