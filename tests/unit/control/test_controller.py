"""The control loop on fake processes: deaths, NaN, full disks, stops, scaling. No Ray and no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from r1ray.config.schema import SourceConfig
from r1ray.control.stop import Stop
from r1ray.errors import ConfigError, DiskFull, IntegrityError, NoTrainableGroups, ProcessDied, RetryBudgetExhausted
from r1ray.run.metrics import read_evaluations, read_events, read_metrics
from r1ray.run.requests import send
from tests.unit.fake_run import World

Make = Callable[..., World]


def steps(world: World) -> list[int]:
    return [row["step"] for row in read_metrics(world.folder.path)]


def test_every_step_is_trained_once_published_and_saved(make: Make) -> None:
    world = make()
    assert world.run()
    assert world.trained == steps(world) == [0, 1, 2, 3, 4, 5]
    assert world.published == [0, 1, 2, 3, 4, 5, 6]
    assert world.disk.checkpoints == [2, 4, 6]
    assert world.disk.exported == 1
    assert world.ledger.status().trained_steps == 6


@pytest.mark.parametrize("error", [ProcessDied("learner-0 died"), RuntimeError("CUDA error")], ids=["died", "device"])
@pytest.mark.parametrize(
    ("method", "at", "again"),
    [
        ("train_step", 3, [2]),
        ("save_checkpoint", 4, [2, 3]),
        ("publish", 3, [2]),
        ("publish", 2, [0, 1]),
        ("save_checkpoint", 6, [4, 5]),
        ("export", 6, []),
    ],
)
def test_a_lost_learner_comes_back_from_its_checkpoint_wherever_it_is_lost(
    make: Make, method: str, at: int, again: list[int], error: Exception
) -> None:
    world = make()
    world.plan[method, at] = [error]
    assert world.run()
    assert world.starts == 2
    assert sorted(world.trained) == sorted([0, 1, 2, 3, 4, 5, *again])
    assert steps(world) == [0, 1, 2, 3, 4, 5]
    assert (world.disk.checkpoints, world.disk.exported) == ([2, 4, 6], 1)
    assert "learner_lost" in world.kinds()


def test_an_error_of_the_driver_in_the_midst_of_a_sync_is_not_the_learners(make: Make) -> None:
    world = make()

    def identity() -> dict[str, Any]:
        if world.published and world.published[-1] == 3:
            raise RuntimeError("a bug of the driver")
        return world.identity()

    world.stop.check = lambda *, unsaved: identity()  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError, match="a bug of the driver"):
        world.run()
    assert world.starts == 1


def test_deaths_without_a_checkpoint_in_between_spend_the_budget(make: Make) -> None:
    world = make(recovery__max_learner_restarts=2)
    world.plan["save_checkpoint", 2] = [ProcessDied("learner-0 died")] * 3
    with pytest.raises(
        RetryBudgetExhausted, match=r"recovery.max_learner_restarts=2\); the last time: .*learner-0 died"
    ):
        world.run()
    assert world.starts == 3


def test_without_digests_each_learner_still_publishes_in_a_group_of_its_own(make: Make) -> None:
    """What tells them apart is the number of their policies' incarnation, which the ledger gives."""
    world = make()
    world.digests = False
    world.plan["train_step", 3] = [ProcessDied("learner-0 died")]
    assert world.run()
    assert world.starts == world.groups_opened == 2


def test_an_evaluation_that_ended_with_its_driver_begins_again_with_the_next(make: Make) -> None:
    world = make(evaluation__every_steps=4)
    world.config.data.evaluation = [SourceConfig(name="heldout")]
    world.on_train = lambda step: world.worker_holds.add("evaluate") if step == 3 else None
    world.plan["train_step", 4] = [ConfigError("the end of the driver")]
    with pytest.raises(ConfigError):
        world.run()
    assert [row["step"] for row in read_evaluations(world.folder.path)] == [0]
    world.on_train = lambda step: None
    world.worker_holds.clear()
    assert world.run()
    assert sorted(row["step"] for row in read_evaluations(world.folder.path)) == [0, 4, 6]


def test_the_deadline_of_an_evaluation_does_not_count_the_start_of_the_first_worker(make: Make) -> None:
    world = make(deadlines__evaluation_s=2.0)
    world.config.data.evaluation = [SourceConfig(name="heldout")]
    world.worker_start_s = 2.2
    assert world.run()
    assert sorted(row["step"] for row in read_evaluations(world.folder.path)) == [0, 6]


@pytest.mark.parametrize("unanswered", [False, True], ids=["done", "under way"])
def test_an_evaluation_of_a_step_that_is_trained_again_is_made_again(make: Make, unanswered: bool) -> None:
    world = make(evaluation__every_steps=3)
    world.config.data.evaluation = [SourceConfig(name="heldout")]
    world.plan["save_checkpoint", 4] = [ProcessDied("learner-0 died")]  # back to checkpoint 2

    def on_train(step: int) -> None:
        first = unanswered and world.starts == 1
        (world.worker_holds.add if first and step >= 2 else world.worker_holds.discard)("evaluate")

    world.on_train = on_train
    assert world.run()
    assert sorted(row["step"] for row in read_evaluations(world.folder.path)) == [0, 3, 6]
    assert world.evaluated.count(3) == (2 if unanswered else 4)  # sampled and greedy


def test_a_resumed_run_says_from_where_it_goes_on(make: Make) -> None:
    world = make()
    world.on_train = lambda step: world.stop.request("SIGTERM") if step == 2 else None
    assert not world.run()
    world.stop = Stop(60)
    said = []
    world.on_train = lambda step: said.append(json.loads((world.folder.path / "status.json").read_text())["step"])
    assert world.run()
    assert said[0] == 3


def test_a_checkpoint_in_between_forgives_deaths(make: Make) -> None:
    world = make(recovery__max_learner_restarts=1)
    world.plan["train_step", 1] = [ProcessDied("x")]
    world.plan["train_step", 3] = [RuntimeError("CUDA error")]
    assert world.run()
    assert world.starts == 3


def test_what_a_new_learner_would_fail_of_too_ends_the_run(make: Make) -> None:
    world = make()
    world.plan["train_step", 1] = [ConfigError("this model cannot be trained")]
    with pytest.raises(ConfigError, match="cannot be trained"):
        world.run()
    assert world.starts == 1


def test_a_stop_saves_what_was_trained_and_a_resume_goes_on_there(make: Make) -> None:
    world = make()
    world.on_train = lambda step: world.stop.request("SIGTERM") if step == 2 else None
    assert not world.run()
    assert world.trained == [0, 1, 2]
    assert world.disk.checkpoints == [2, 3]
    assert ("stop_leasing", (), {}) in world.queue.calls
    assert world.kinds()[-1] == "interrupted"
    world.stop = Stop(60)
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 5]
    assert world.ledger.status().trained_steps == 6


def test_a_stop_saves_at_once_where_the_learner_waits_for_a_batch(make: Make) -> None:
    world = make()
    take = world.queue.methods["take"]

    def never_whole(step: int, wait_s: float) -> Any:
        if step < 3:
            return take(step, wait_s)
        world.stop.request("SIGTERM")
        return None

    world.queue.methods["take"] = never_whole
    assert not world.run()
    assert world.trained == [0, 1, 2]
    assert world.disk.checkpoints == [2, 3]
    world.queue.methods["take"], world.stop = take, Stop(60)
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 5]


def test_a_failure_of_the_rollouts_does_not_keep_a_stop_from_saving(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step starves because all its groups are dropped; the last of them that the run allows comes after the stop."""
    monkeypatch.setattr("r1ray.control.progress.STATUS_EVERY_S", 0.0)
    world = make(recovery__max_dropped_batches=1)
    take = world.queue.methods["take"]

    def drops_all(step: int, wait_s: float) -> Any:
        if step < 3:
            return take(step, wait_s)
        world.stop.request("SIGINT")
        for lease in world.ledger.lease("rollout-0", step, 1):
            world.ledger.fail(lease.group_id, "DataError: no question", infrastructure=False)
        return None

    world.queue.methods["take"] = drops_all
    assert not world.run()
    assert world.disk.checkpoints == [2, 3]
    assert world.kinds()[-1] == "interrupted"


def test_a_stop_does_not_wait_for_a_weight_sync_that_hangs(make: Make) -> None:
    """A worker stands still in the sync of a step, so the next one starves."""
    world = make(deadlines__shutdown_s=5.0, sync__deadline_s=60.0)
    world.on_train = lambda step: world.worker_holds.add("receive_weights") if step == 2 else None
    check = world.stop.check

    def stop_in_the_sync(*, unsaved: bool) -> None:
        if world.published[-1:] == [3]:
            world.stop.request("SIGINT")
        check(unsaved=unsaved)

    world.stop.check = stop_in_the_sync  # type: ignore[method-assign]
    assert not world.run()
    assert world.disk.checkpoints == [2, 3]
    (event,) = [e for e in read_events(world.folder.path) if e["kind"] == "interrupted"]
    assert (event["reason"], event["saved"]) == ("SIGINT", 3)
    assert "worker_stale" not in world.kinds()


def test_a_stop_without_anything_to_save_ends_at_once(make: Make) -> None:
    world = make()
    world.stop.request("SIGTERM")
    assert not world.run()
    assert world.starts == 0


def test_a_stop_does_not_wait_beyond_its_grace(make: Make) -> None:
    now = 0.0
    world = make()
    world.stop = Stop(60, clock=lambda: now)

    def hang(step: int) -> None:
        nonlocal now
        if step == 3:
            world.stop.request("SIGTERM")
            now = 49.0

    world.on_train = hang
    assert not world.run()
    assert world.disk.checkpoints == [2]
    (event,) = [e for e in read_events(world.folder.path) if e["kind"] == "interrupted"]
    assert "deadlines.shutdown_s=60" in event["reason"]


def test_a_full_disk_pauses_the_run_until_there_is_room(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.control.outages.RETRY_S", 0.0)
    world = make()
    world.plan["save_checkpoint", 2] = [DiskFull("no room for a checkpoint")] * 3
    assert world.run()
    assert world.starts == 1
    assert world.disk.checkpoints == [2, 4, 6]
    assert [k for k in world.kinds() if k in ("paused", "resumed")] == ["paused", "resumed"]


def test_a_disk_that_stays_full_ends_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.control.outages.RETRY_S", 0.0)
    world = make(recovery__outage_timeout_s=0.05)
    world.queue.methods["commit"] = _raise(DiskFull("no room in the ledger"))
    with pytest.raises(
        RetryBudgetExhausted, match=r"0\.05 s \(recovery\.outage_timeout_s\); the last error: no room in the ledger"
    ):
        world.run()
    assert json.loads(world.folder.status.read_text())["state"] == "paused"


def test_a_ledger_that_only_the_workers_cannot_write_pauses_the_run_too(make: Make) -> None:
    """The controller's own question for a batch writes nothing where none is ready."""
    world = make()
    take, seen = world.queue.methods["take"], []

    def full(step: int, wait_s: float) -> Any:
        if step != 2 or "resumed" in world.kinds():
            return take(step, wait_s)
        world.problem = None if "paused" in world.kinds() else "ledger.sqlite: no room left to write"
        seen.append(json.loads(world.folder.status.read_text()))
        return None

    world.queue.methods["take"] = full
    assert world.run()
    (paused,) = [e for e in read_events(world.folder.path) if e["kind"] == "paused"]
    assert "no room left to write; the run continues once this succeeds" in paused["reason"]
    assert any(s["state"] == "paused" and s["message"] == paused["reason"] for s in seen)
    assert [k for k in world.kinds() if k in ("paused", "resumed")] == ["paused", "resumed"]


def test_a_ledger_that_stays_full_for_the_workers_ends_the_run(make: Make) -> None:
    world = make(recovery__outage_timeout_s=0.5)
    world.queue.methods["take"] = lambda step, wait_s: None
    world.problem = "ledger.sqlite: no room left to write"
    with pytest.raises(
        RetryBudgetExhausted, match=r"0\.5 s \(recovery\.outage_timeout_s\); the last error: .*no room left to write"
    ):
        world.run()


def test_a_queue_that_restarts_is_asked_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.control.outages.RETRY_S", 0.0)
    world = make()
    real = dict(world.queue.methods)
    for method in ("take", "commit", "publish", "payloads", "rollback"):
        world.queue.methods[method] = _fail_first(ProcessDied("queue died"), real[method])
    assert world.run()
    assert world.starts == 1
    assert world.trained == [0, 1, 2, 3, 4, 5]


def test_a_run_whose_groups_are_all_dropped_warns_and_ends_by_name(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.control.progress.STATUS_EVERY_S", 0.0)
    world = make(recovery__max_dropped_batches=4)
    status, warnings = world.queue.methods["status"], []

    def one_more_dropped() -> Any:
        for lease in world.ledger.lease("rollout-0", 0, 1):
            world.ledger.fail(lease.group_id, "DataError: no question in row N", infrastructure=False)
        if world.folder.status.exists():
            warnings.append(json.loads(world.folder.status.read_text())["message"])
        return status()

    world.queue.methods |= {"status": one_more_dropped, "take": lambda step, wait_s: None}
    with pytest.raises(
        NoTrainableGroups, match=r"4 of 4 groups in a row \(100%\) were dropped: DataError: no question"
    ):
        world.run()
    assert world.kinds().count("groups_dropped") == 1
    assert warnings[0] == ""
    assert "groups for step 0 (100%) were dropped: DataError: no question in row N" in warnings[-1]


def test_what_the_ledger_refuses_is_not_repeated(make: Make) -> None:
    world = make()
    world.queue.methods["commit"] = _raise(IntegrityError("another run's checkpoint"))
    with pytest.raises(IntegrityError, match="another run's"):
        world.run()


def test_leases_of_an_earlier_driver_are_handed_back_first(make: Make) -> None:
    world = make()
    assert len(world.ledger.lease("rollout-0", 0, 2)) == 2
    assert world.run()
    assert world.ledger.status().reissued == 2


def test_workers_can_be_added_while_it_runs(make: Make) -> None:
    world = make()
    world.on_train = lambda step: send(world.folder, "scale", {"rollout": 3}) if step == 1 else None
    assert world.run()
    (event,) = [e for e in read_events(world.folder.path) if e["kind"] == "scaled"]
    assert (event["before"], event["workers"]) == (1, 3)
    assert world.kinds().count("worker_started") == 3


def test_a_run_ends_with_a_sentence_on_each_bound_of_a_heldout_reward(make: Make) -> None:
    world = make(hacking_monitor__max_heldout_fall={"fluency": 5.0})
    world.config.data.evaluation = [SourceConfig(name="heldout")]
    assert world.run()
    (event,) = [e for e in read_events(world.folder.path) if e["kind"] == "heldout_bound"]
    assert "fluency on heldout fell by 6.00 (standard error 0.00), from 0.00 to -6.00 with policy 6" in event["message"]
    assert event["within"] is False


def test_a_stop_by_request_saves_as_one_by_signal_does(make: Make) -> None:
    world = make()
    world.on_train = lambda step: send(world.folder, "stop", {}) if step == 2 else None
    assert not world.run()
    assert world.trained == [0, 1, 2]
    assert world.disk.checkpoints == [2, 3]
    assert world.kinds()[-1] == "interrupted"


def _raise(error: Exception) -> Callable[..., Any]:
    def method(*arguments: Any) -> Any:
        raise error

    return method


def _fail_first(error: Exception, method: Callable[..., Any]) -> Callable[..., Any]:
    errors = [error]
    return lambda *arguments: _raise(errors.pop())() if errors else method(*arguments)
