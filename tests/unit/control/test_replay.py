"""The control loop of a replay: the same loop, without rollout workers. No Ray and no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.codec import unpack_scored
from r1ray.control.stop import Stop
from r1ray.errors import IntegrityError, NoTrainableGroups, ProcessDied
from r1ray.ledger import LedgerReader
from r1ray.run.ledger import open_ledger
from r1ray.run.metrics import read_metrics
from r1ray.run.recording import RECORDED
from r1ray.run.requests import send
from r1ray.run.status import explain, read_run_status
from tests.unit.fake_run import World
from tests.unit.recorded import record, replay_of

Make = Callable[..., World]


@pytest.fixture
def world(make: Make, tmp_path: Path) -> World:
    """Six steps of one group, of the eight that were recorded."""
    return make(replay=replay_of(record(tmp_path / "recorded")))


def trained(world: World) -> list[str]:
    """The recorded ids of the trained groups, step by step."""
    with open_ledger(world.folder) as opened:
        assert opened is not None
        records = sorted((r.step, r.group_id) for r in opened[0].groups(state="trained") if r.step is not None)
        return [origin(opened[0], group_id) for _, group_id in records]


def origin(ledger: LedgerReader, group_id: str) -> str:
    (payload,) = ledger.payloads([group_id])
    return str(unpack_scored(payload).rollout.prompt.meta[RECORDED]["group_id"])


def test_the_recorded_groups_are_trained_in_their_order_and_nothing_is_published(world: World) -> None:
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 5]
    assert trained(world) == ["1-1", "0-1", "3-1", "2-1", "5-1", "4-1"]
    assert (world.published, world.groups_opened) == ([], 0)
    assert world.disk.checkpoints == [2, 4, 6]
    assert world.disk.exported == 1
    world.expect_clean("a replay")


def test_a_step_reports_neither_rollouts_nor_syncs_nor_staleness(world: World) -> None:
    assert world.run()
    row = read_metrics(world.folder.path)[-1]
    assert {"batch/wait_s", "time/step_s", "learner/idle_share", "queue/ready"} <= set(row)
    assert not any(key.startswith(("rollout/", "sync/")) for key in row)
    assert "staleness_steps" not in world.metrics.observed


def test_a_lost_learner_trains_the_same_groups_again(world: World) -> None:
    world.plan["train_step", 3] = [ProcessDied("learner-0 died")]
    assert world.run()
    assert world.trained == [0, 1, 2, 2, 3, 4, 5]
    assert trained(world) == ["1-1", "0-1", "3-1", "2-1", "5-1", "4-1"]
    world.expect_clean("a replay whose learner died")


def test_a_stopped_replay_is_resumed_where_it_was(world: World) -> None:
    world.on_train = lambda step: world.stop.request("SIGTERM") if step == 2 else None
    assert not world.run()
    world.stop = Stop(60)
    assert world.run()
    assert world.trained == [0, 1, 2, 3, 4, 5]
    assert trained(world) == ["1-1", "0-1", "3-1", "2-1", "5-1", "4-1"]
    world.expect_clean("a resumed replay")


def test_a_killed_replay_is_resumed_from_its_checkpoint(world: World) -> None:
    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 3 and world.starts == 1:
            raise Killed

    world.on_train = kill
    with pytest.raises(Killed):
        world.run()
    assert world.run()
    assert world.trained == [0, 1, 2, 2, 3, 4, 5]
    assert trained(world) == ["1-1", "0-1", "3-1", "2-1", "5-1", "4-1"]
    world.expect_clean("a killed replay")


def test_a_recording_that_ends_too_early_ends_the_run_by_name(make: Make, tmp_path: Path) -> None:
    world = make(replay=replay_of(record(tmp_path / "recorded"), steps=2))
    with pytest.raises(NoTrainableGroups, match=r"step 4 has no complete batch: all 4 groups of the recorded run"):
        world.run()
    assert world.trained == [0, 1, 2, 3]
    world.expect_clean("an exhausted replay")


def test_a_recording_that_changed_its_place_ends_the_run_by_name(world: World, tmp_path: Path) -> None:
    def replaced(step: int) -> None:
        run_json = tmp_path / "recorded" / "run.json"
        run_json.write_text(run_json.read_text().replace("bus-1a2b3c", "bus-other"))

    world.on_train = replaced
    with pytest.raises(IntegrityError, match="bus-other"):
        world.run()


def test_there_is_nothing_to_scale(world: World) -> None:
    asked: list[Any] = []
    world.on_train = lambda step: asked.append(send(world.folder, "scale", {"rollout": 3})) if step == 1 else None
    assert world.run()
    answers = [json.loads(path.read_text()) for path in world.folder.control.glob("*answer*")]
    assert [a["accepted"] for a in answers] == [False]
    assert "no rollout workers to scale" in answers[0]["message"]


def test_status_inspect_and_trace_of_a_replay(world: World) -> None:
    seen: list[list[str]] = []
    world.on_train = lambda step: seen.append(explain(read_run_status(world.folder.path)))
    assert world.run()
    assert seen
    assert [line for lines in seen for line in lines if "worker" in line] == []
    shown = CliRunner().invoke(build_app(), ["inspect", str(world.folder.path), "--step", "0"])
    assert "policy of another run" in shown.output
    traced = CliRunner().invoke(build_app(), ["trace", str(world.folder.path), "0-1"])
    assert "recorded as 1-1 in step 0 of another run" in traced.output
