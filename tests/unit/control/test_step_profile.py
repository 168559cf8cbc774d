"""A profile of a few steps, on fake processes: which steps it covers, and what it survives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from r1ray.errors import ConfigError, ProcessDied
from r1ray.run.metrics import read_events
from r1ray.run.profile import STEP_TABLE, TIMELINE
from tests.unit.fake_run import World

Make = Callable[..., World]


def table(world: World) -> str:
    return (world.folder.profile / STEP_TABLE).read_text()


def test_steps_after_a_warm_up_are_profiled_and_the_table_follows(make: Make) -> None:
    world = make()
    world.profile_steps = 2
    assert world.run()
    assert world.profiled == ["start before step 1", "stop before step 3", TIMELINE]
    text = table(world)
    assert "mean of steps 1 to 2" in text
    assert "| - forward and loss | 0.0300 |" in text
    assert "Rollout workers, meanwhile: generate" in text
    assert "Checkpoints after these steps: 1," in text  # of policy 2
    (event,) = [e for e in read_events(world.folder.path) if e["kind"] == "profiled"]
    assert (event["steps"], event["problems"]) == ([1, 2], [])
    assert world.shown[-1].startswith("Traces for https://ui.perfetto.dev: ")


def test_without_a_profile_nothing_is_asked_of_the_learner(make: Make) -> None:
    world = make()
    assert world.run()
    assert world.profiled == world.shown == []
    assert not world.folder.profile.exists()


def test_the_last_steps_of_a_run_may_be_the_profiled_ones(make: Make) -> None:
    world = make()
    world.profile_steps = 5
    assert world.run()
    assert world.profiled == ["start before step 1", "stop before step 6", TIMELINE]
    assert "mean of steps 1 to 5" in table(world)


def test_a_run_that_ends_earlier_has_a_profile_of_what_there_was(make: Make) -> None:
    world = make()
    world.profile_steps = 50
    assert world.run()
    assert "mean of steps 1 to 5" in table(world)


def test_a_run_of_a_warm_up_only_says_that_there_is_none(make: Make) -> None:
    world = make(run__steps=1)
    world.profile_steps = 1
    assert world.run()
    assert world.shown == ["no profile: the run ended before the end of a step after the warm-up step: more run.steps"]


@pytest.mark.parametrize("lost", [("train_step", 2), ("stop_profile", 3)])
def test_a_lost_learner_is_profiled_again_after_a_new_warm_up(make: Make, lost: tuple[str, int]) -> None:
    world = make()
    world.profile_steps = 2
    world.plan[lost] = [ProcessDied("learner-0 died")]
    assert world.run()
    assert world.profiled[-3:] == ["start before step 3", "stop before step 5", TIMELINE]
    assert "mean of steps 3 to 4" in table(world)


def test_a_trace_that_cannot_be_written_is_named_and_costs_nothing_else(make: Make) -> None:
    world = make()
    world.profile_steps, world.profile_problem = 1, "learner-0.json was not written: no space"
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 5]
    assert "learner-0.json was not written: no space" in world.shown
    assert "mean of step 1," in table(world)


def test_the_end_of_a_failed_run_says_why_there_is_no_profile(make: Make) -> None:
    world = make()
    world.profile_steps = 4
    world.plan["train_step", 2] = [ConfigError("this model cannot be trained")]
    with pytest.raises(ConfigError, match="cannot be trained"):
        world.run()
    assert len(world.shown) == 1
    assert "no profile: " in world.shown[0]
