"""The control loop where steps are not finite: what is rolled back, to which checkpoint, and wherever it is killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from r1ray.control.stop import Stop
from r1ray.errors import IntegrityError, RetryBudgetExhausted
from r1ray.run.metrics import read_events, read_metrics
from tests.unit.fake_run import World

Make = Callable[..., World]


class Killed(BaseException):
    """Stands for SIGKILL of the driver: nothing of the run catches it."""


def steps(world: World) -> list[int]:
    return [row["step"] for row in read_metrics(world.folder.path)]


def test_steps_that_are_not_finite_roll_back_to_the_checkpoint_before_them(make: Make) -> None:
    world = make(recovery__max_nan_steps=3, checkpoint__every_steps=1)
    world.plan.update({("train_step", step): [1.0] for step in (2, 3, 4)})
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert steps(world) == [0, 1, 2, 3, 4, 5]
    assert world.disk.checkpoints == [1, 2, 3, 4, 5, 6]
    assert world.kinds().count("step_skipped") == 3
    (event,) = [e for e in read_events(world.folder.path) if e["kind"] == "rolled_back"]
    assert "steps 2 to 4" in event["message"]


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("keep_payload_steps", [None, 1])
def test_a_rollback_has_its_checkpoint_however_few_are_kept(
    make: Make, keep: int, keep_payload_steps: int | None
) -> None:
    world = make(
        recovery__max_nan_steps=3,
        checkpoint__every_steps=1,
        checkpoint__keep=keep,
        queue__keep_payload_steps=keep_payload_steps,
    )
    world.plan.update({("train_step", step): [1.0] for step in (2, 3, 4)})
    world.on_change = world.expect_clean
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    assert world.disk.checkpoints == [6] if keep == 1 else [5, 6]


def test_a_checkpoint_that_falls_into_skipped_steps_is_made_up_for(make: Make) -> None:
    world = make(recovery__max_nan_steps=3)
    world.plan["train_step", 1] = [1.0]
    assert world.run()
    assert world.disk.checkpoints == [3, 4, 6]


def test_a_rollback_may_be_killed_at_any_point(make: Make) -> None:
    """A driver that dies before or after any of its writes leaves a clean run,
    which continues from before the skipped steps.
    """
    survived = moments = 0
    while not survived:
        world = make(recovery__max_nan_steps=2, checkpoint__every_steps=1, checkpoint__keep=2)
        world.plan.update({("train_step", step): [1.0] for step in (3, 4)})
        left = [moments]

        def change(method: str, world: World = world, left: list[int] = left) -> None:
            if left and len(world.trained) == 5 and "rolled_back" in world.kinds():
                world.expect_clean(method)
                left[0] -= 1
                if left[0] < 0:
                    left.clear()
                    raise Killed(method)

        world.on_change = change
        try:
            survived = world.run()
        except Killed:
            assert world.run()
        assert (world.trained[:6], world.trained[-1]) == ([0, 1, 2, 3, 4, 3], 5)
        assert world.ledger.status().trained_steps == 6
        moments += 1
    assert moments > 8


def test_training_does_not_begin_anew_where_its_checkpoints_are_gone(make: Make) -> None:
    world = make()
    world.on_train = lambda step: world.stop.request("SIGTERM") if step == 2 else None
    assert not world.run()
    for folder in world.folder.checkpoints.iterdir():
        shutil.rmtree(folder)
    world.stop = Stop(60)
    with pytest.raises(IntegrityError, match="3 steps are trained, but there is no checkpoint"):
        world.run()
    assert world.trained == [0, 1, 2]
    assert world.ledger.status().trained_steps == 3


def test_fewer_skipped_steps_in_a_row_than_allowed_are_only_counted(make: Make) -> None:
    world = make(recovery__max_nan_steps=2)
    world.plan.update({("train_step", step): [1.0] for step in (1, 3)})
    assert world.run()
    assert world.starts == 1
    assert [row["train/skipped"] for row in read_metrics(world.folder.path)] == [0, 1, 0, 1, 0, 0]


def test_rollbacks_that_do_not_help_spend_their_budget(make: Make) -> None:
    world = make(recovery__max_nan_steps=1, recovery__max_nan_rollbacks=2)
    world.plan["train_step", 3] = [1.0] * 9
    with pytest.raises(RetryBudgetExhausted, match=r"recovery.max_nan_rollbacks"):
        world.run()
    assert world.trained.count(3) == 3
