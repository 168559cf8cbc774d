"""Workers that are added and that leave, by a clock that the test moves."""

from __future__ import annotations

from tests.unit.fleet_support import World


def test_scaling_stays_within_its_bounds() -> None:
    world = World(workers=1)
    world.fleet.scale(9)
    world.fleet.scale(9)
    world.fleet.tick()
    assert len(world.fleet.members) == 3
    assert world.kinds().count("scaled") == 1


def test_a_worker_that_starts_leaves_at_once_and_before_those_who_serve() -> None:
    world = World(workers=2)
    world.ready("rollout-1")
    world.fleet.synced(("rollout-1",), 0)
    world.fleet.scale(1)
    world.fleet.tick()
    assert set(world.fleet.members) == {"rollout-1"}
    assert world.remotes["rollout-0"].dead


def test_scaling_up_starts_and_scaling_down_drains() -> None:
    world = World(workers=1)
    world.ready("rollout-0")
    world.fleet.scale(2)
    world.fleet.tick()
    assert set(world.fleet.members) == {"rollout-0", "rollout-1"}
    world.ready("rollout-1")
    world.fleet.scale(1)
    world.fleet.tick()
    assert world.fleet.members["rollout-1"].state == "draining"
    world.fleet.tick()
    assert set(world.fleet.members) == {"rollout-0"}
    assert world.remotes["rollout-1"].dead
    assert world.kinds()[-2:] == ["worker_draining", "worker_left"]
    assert world.released == [("rollout-1", True)]


def draining() -> World:
    """rollout-0 continues; rollout-1 gets a drain request and does not answer."""
    world = World(workers=2)
    world.ready("rollout-0", "rollout-1")
    world.remotes["rollout-1"].hold.add("drain")
    world.fleet.scale(1)
    world.fleet.tick()
    return world


def test_a_drain_that_hangs_ends_at_its_deadline() -> None:
    world = draining()
    world.after(29.0)
    assert "rollout-1" in world.fleet.members
    world.after(2.0)
    assert "rollout-1" not in world.fleet.members
    assert world.released == [("rollout-1", True)]


def test_a_worker_that_dies_as_it_drains_has_died() -> None:
    world = draining()
    world.remotes["rollout-1"].kill()
    world.after(0.1)
    assert world.released == [("rollout-1", False)]
