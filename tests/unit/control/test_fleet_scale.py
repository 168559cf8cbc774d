"""Workers that are added and that leave, by a clock that the test moves."""

from __future__ import annotations

import pytest

from r1ray.errors import ConfigError
from tests.unit.fleet_support import World


@pytest.mark.parametrize("workers", [0, 4])
def test_scaling_beyond_its_bounds_is_refused(workers: int) -> None:
    world = World(workers=1)
    with pytest.raises(ConfigError, match=rf"rollout={workers}: expected 1 to 3 \(rollout\.max_workers"):
        world.fleet.scale(workers, "me")
    world.fleet.tick()
    assert len(world.fleet.members) == 1
    assert "scaled" not in world.kinds()


def test_scaling_is_recorded_with_who_wanted_it() -> None:
    world = World(workers=1)
    assert world.fleet.scale(3, "me") == 1
    assert world.fleet.scale(3, "me") == 3
    world.fleet.tick()
    assert len(world.fleet.members) == 3
    assert [fields for kind, fields in world.events if kind == "scaled"] == [{"workers": 3, "before": 1, "by": "me"}]


def test_a_worker_that_starts_leaves_at_once_and_before_those_who_serve() -> None:
    world = World(workers=2)
    world.ready("rollout-1")
    world.fleet.synced(("rollout-1",), 0)
    world.fleet.scale(1, "me")
    world.fleet.tick()
    assert set(world.fleet.members) == {"rollout-1"}
    assert world.remotes["rollout-0"].dead


def test_scaling_up_starts_and_scaling_down_drains() -> None:
    world = World(workers=1)
    world.ready("rollout-0")
    world.fleet.scale(2, "me")
    world.fleet.tick()
    assert set(world.fleet.members) == {"rollout-0", "rollout-1"}
    world.ready("rollout-1")
    world.fleet.scale(1, "me")
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
    world.fleet.scale(1, "me")
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


def test_workers_leave_so_that_whole_nodes_become_empty() -> None:
    world = World(workers=3)
    world.nodes = {"rollout-0": "a", "rollout-1": "b", "rollout-2": "b"}
    world.ready("rollout-0", "rollout-1", "rollout-2")
    world.fleet.synced(("rollout-0", "rollout-1", "rollout-2"), 0)
    world.fleet.scale(2, "me")
    world.fleet.tick()
    world.fleet.tick()
    assert set(world.fleet.members) == {"rollout-1", "rollout-2"}


def test_a_worker_whose_host_is_taken_away_drains_and_is_replaced_without_a_death() -> None:
    world = World(workers=2)
    world.ready("rollout-0", "rollout-1")
    world.remotes["rollout-0"].hold.add("drain")
    world.stats["rollout-0"]["host_ends_s"] = 25.0
    world.after(2.0)
    world.after(0.1)
    assert world.ended == [("n", 25.0)]
    assert world.fleet.members["rollout-0"].state == "draining"
    assert world.remotes["rollout-0"].calls[-1] == ("drain", (15.0,), {}), "it ends before its host does"
    assert "rollout-2" in world.fleet.members, "its replacement starts at once"
    world.remotes["rollout-0"].kill()
    world.after(0.1)
    assert world.released == [("rollout-0", True)], "prompts of a host that went away are not at fault"
    assert "worker_lost" not in world.kinds()


def test_a_host_that_ray_does_not_drain_is_left_all_the_same() -> None:
    world = World(workers=1)
    world.ready("rollout-0")
    world.problem = "the head does not answer"
    world.stats["rollout-0"]["host_ends_s"] = 3.0
    world.after(2.0)
    world.after(0.1)
    (ended,) = [fields for kind, fields in world.events if kind == "host_ends"]
    assert ended["problem"] == "the head does not answer"
    assert ("drain", (1.0,), {}) in world.remotes["rollout-0"].calls
