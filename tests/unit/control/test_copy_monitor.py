"""What the control loop says of a restored ledger and of its copies, and what it trains after a restore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1ray.control.copy_monitor import CopyMonitor, finish_copies
from r1ray.control.stop import Stop
from r1ray.errors import InfrastructureError
from r1ray.ledger.copies import write_copy
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import CopyState, LedgerStatus, WrittenCopy
from r1ray.run.metrics import read_events
from r1ray.util.files import read_json
from tests.unit.fake_run import World
from tests.unit.ledger_support import new_ledger
from tests.unit.scripted import FakeHandle

Make = Callable[..., World]
LAST = WrittenCopy(copied_at=1.0, bound_steps=3, trained_steps=2, size=9, seconds=0.1)


class Events(list[tuple[str, dict[str, Any]]]):
    def __call__(self, kind: str, **fields: Any) -> None:
        self.append((kind, fields))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self]


@pytest.fixture
def status(tmp_path: Path) -> LedgerStatus:
    ledger = new_ledger(tmp_path)
    try:
        return ledger.status()
    finally:
        ledger.close()


def test_copies_that_fail_or_become_old_are_reported_once(status: LedgerStatus) -> None:
    events = Events()
    monitor = CopyMonitor(100.0, on_event=events)
    assert monitor.look(status) == ""
    good = CopyState(last=LAST, age_s=290.0, problem=None)
    assert monitor.look(replace(status, copy=good)) == ""
    for _ in range(2):
        text = monitor.look(replace(status, copy=replace(good, problem="no space left")))
    assert "training continues: no space left" in text
    assert "the last one is 4m 50s old" in text
    assert monitor.look(replace(status, copy=good)) == ""
    assert "is old" in monitor.look(replace(status, copy=replace(good, age_s=301.0)))
    assert "no copy yet" in monitor.look(replace(status, copy=CopyState(last=None, age_s=None, problem="x")))
    assert events.kinds == ["ledger_copy_failed", "ledger_copy_recovered", "ledger_copy_old", "ledger_copy_failed"]


def test_the_age_of_a_copy_that_never_was_made_grows_from_the_start_of_the_run(make: Make) -> None:
    world = make(run__ledger_dir="/local")
    never = CopyState(last=None, age_s=None, problem="full")
    world.queue.methods["status"] = lambda: replace(world.ledger.status(), copy=never)
    assert world.run()
    status = read_json(world.folder.status)
    assert status["queue"]["copy_age_s"] == pytest.approx(status["elapsed_s"], abs=1.0)


def test_a_last_copy_that_fails_is_reported_and_changes_no_outcome() -> None:
    def answer(result: Any) -> FakeHandle:
        def finish() -> Any:
            if isinstance(result, Exception):
                raise result
            return result

        return FakeHandle("queue", finish_copy=finish)

    events = Events()
    finish_copies(answer(CopyState(last=LAST, age_s=0.0, problem=None)), 1.0, on_event=events)
    assert events.kinds == []
    finish_copies(answer(CopyState(last=LAST, age_s=0.0, problem="full")), 1.0, on_event=events)
    finish_copies(answer(InfrastructureError("the queue died")), 1.0, on_event=events)
    hung = answer(None)
    hung.hold = {"finish_copy"}
    finish_copies(hung, 0.0, on_event=events)
    assert events.kinds == ["ledger_copy_failed"] * 3
    assert [fields["message"].rpartition(": ")[2] for _, fields in events[:2]] == ["full", "the queue died"]


@pytest.mark.parametrize("copied_after", [0, 1, 2])
def test_a_resume_from_an_older_copy_trains_no_step_of_the_checkpoint_again(make: Make, copied_after: int) -> None:
    world = make(run__ledger_dir="/local", checkpoint__every_steps=1)
    run_id, copy = world.folder.identity().run_id, world.folder.path.parent / "copy.sqlite"

    def train(step: int) -> None:
        if step == copied_after:
            write_copy(world.folder.ledger, copy, run_id)
        if step == 2:
            world.stop.request("SIGTERM")

    world.on_train = train
    no_copy_yet = CopyState(last=None, age_s=None, problem=None)
    world.queue.methods["status"] = lambda: replace(world.ledger.status(), copy=no_copy_yet)
    assert not world.run()
    trained = [group.index for step in range(3) for group in batches(world, step)]
    world.folder.write_status({"queue": {"scored": 4, "taken": 1, "trained": 3}, "updated": 61.0})  # its last
    world.ledger.close()
    for left in world.folder.path.glob("ledger.sqlite*"):
        left.unlink()
    copy.rename(world.folder.ledger)
    world.ledger = Ledger.open(world.folder.ledger, run_id=run_id)
    known = world.ledger.status()
    world.opened = replace(
        world.opened,
        source="restored",
        copied_at=1.0,
        bound_steps=known.bound_steps,
        stored=known.scored + known.taken + known.trained,
    )
    world.queue = FakeHandle("queue", **world._queue_methods())
    world.stop, world.on_train = Stop(60), lambda step: None
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 5]
    indices = trained + [group.index for step in range(3, 6) for group in batches(world, step)]
    assert len(set(indices)) == 6
    world.expect_clean("the resume")
    events = {event["kind"]: event for event in read_events(world.folder.path)}
    assert events["ledger_restored"]["lost_groups"] == 8 - world.opened.stored
    assert "(1m 00s before the end of the run)" in events["ledger_restored"]["message"]
    assert ("ledger_reconciled" in events) == (copied_after < 2)
    if copied_after == 0:
        assert events["ledger_reconciled"]["message"].startswith("step_000003 was trained on steps 1 to 2")


def batches(world: World, step: int) -> Any:
    rows = world.ledger._db.execute("SELECT prompt_index AS [index] FROM groups WHERE step = ?", (step,)).fetchall()
    return [type("Row", (), {"index": row["index"]}) for row in rows]
