"""What a run exports, from the real control loop on fake processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.config.schema import Config
from r1ray.control.process_memory import memory_metrics
from r1ray.control.run_telemetry import RunTelemetry, merged_budgets
from r1ray.control.sync import SyncReport
from r1ray.errors import ProcessDied
from r1ray.run.metrics import read_events, read_metrics
from r1ray.types import BatchManifest, GroupSummary
from r1ray.util.files import read_json
from tests.unit.fake_run import World
from tests.unit.recorder import MemoryRecorder

Make = Callable[..., World]


def test_a_run_exports_steps_queue_budgets_restarts_and_memory(make: Make) -> None:
    world = make()
    world.plan["train_step", 3] = [ProcessDied("learner-0 died")]
    assert world.run()
    values = world.metrics.values
    assert values["steps", ()] == len(world.trained)
    assert values["policy_version", ()] == 6
    assert values["restarts", ("learner",)] == 1
    assert values["events", ("learner_lost",)] == 1
    assert 0 < values["queue_groups", ("trained",)] <= world.ledger.status().trained
    assert values["budget_used_ratio", ("recovery.max_learner_restarts",)] == 0  # a checkpoint has reset it
    assert values["rollout_workers", ("healthy",)] == 1
    assert values["rollout_tokens", ("rollout-0",)] == 1
    assert values["process_memory_bytes", ("driver",)] > 1e6
    assert values["disk_free_bytes", ("run.dir",)] > 0
    assert ("disk_free_bytes", ("run.ledger_dir",)) not in values
    assert (values["paused", ()], values["stalled_seconds", ()]) == (0, pytest.approx(0, abs=5))
    row = read_metrics(world.folder.path)[-1]
    assert row["memory/driver_bytes"] > 1e6
    assert row["time/step_s"] >= row["sync/seconds"]
    kinds = {event["kind"] for event in read_events(world.folder.path)}
    assert {kind for name, (kind, *_) in ((n, k or ("",)) for n, k in values) if name == "events"} == kinds


def test_the_parts_of_a_steps_time_add_up_to_it() -> None:
    recorder = MemoryRecorder()
    row = {
        "step": 4,
        "batch/wait_s": 1.0,
        "learner/step_s": 2.0,
        "sync/seconds": 0.5,
        "time/step_s": 4.0,
        "reward/mean": 0.25,
        "reward/part/accuracy": 0.5,
        "train/kl": 0.1,
        "batch/tokens": 100.0,
    }
    RunTelemetry(recorder, Config()).stepped(row, manifest(4, versions=[4, 3, 3]))
    parts = {name: recorder.values["step_seconds", (name,)] for name in ("wait", "train", "sync", "other")}
    assert parts == {"wait": 1.0, "train": 2.0, "sync": 0.5, "other": 0.5}
    assert recorder.observed["staleness_steps"] == [0, 1, 1]
    assert recorder.values["reward_part", ("accuracy",)] == 0.5
    assert recorder.values["kl_nats", ()] == 0.1
    assert ("entropy_nats", ()) not in recorder.values  # the step did not measure it
    assert recorder.values["trained_tokens", ()] == 100


def manifest(step: int, versions: list[int]) -> BatchManifest:
    groups = tuple(
        GroupSummary(
            group_id=f"{i}-1",
            index=i,
            prompt_tokens=3,
            completion_tokens=(1,),
            rewards=(0.0,),
            min_policy_version=version,
            max_policy_version=version,
        )
        for i, version in enumerate(versions)
    )
    return BatchManifest(step=step, groups=groups)


def test_bytes_of_a_sync_count_every_worker_that_received_it() -> None:
    recorder = MemoryRecorder()
    report = SyncReport(version=2, epoch=1, digest="d", synced=("a", "b"), wire_bytes=10, seconds=0.3, apply_s=0.1)
    RunTelemetry(recorder, Config()).synced(report)
    assert recorder.values["sync_bytes", ()] == 20
    assert recorder.observed["sync_seconds"] == [0.3]


def status(**changes: Any) -> dict[str, Any]:
    fields = {"state": "running", "stalled_s": 0.0, "free_bytes": 1, "budgets": {}, "memory": {}, "evaluation": None}
    return {**fields, **changes}


def test_tokens_grow_by_what_a_worker_generated_and_memory_of_a_gone_process_is_0() -> None:
    recorder = MemoryRecorder()
    telemetry = RunTelemetry(recorder, Config())
    member: Any = SimpleNamespace(state="healthy", stats={"tokens": 5.0, "busy_s": 1.0, "idle_s": 0.0})
    telemetry.observed(status(memory={"rollout-0": 7.0}), {"rollout-0": member})
    member.stats = {"tokens": 9.0, "busy_s": 1.5, "idle_s": 2.0}
    telemetry.observed(status(state="paused"), {"rollout-0": member})
    assert recorder.values["rollout_tokens", ("rollout-0",)] == 9
    assert recorder.values["rollout_seconds", ("idle",)] == 2.0
    assert recorder.values["process_memory_bytes", ("rollout-0",)] == 0
    assert recorder.values["paused", ()] == 1


def test_the_disk_of_the_ledger_is_watched_beside_that_of_the_run_folder(make: Make) -> None:
    world = make(run__ledger_dir="/local")
    world.queue.methods["status"] = lambda: replace(world.ledger.status(), free_bytes=4096)
    assert world.run()
    assert world.metrics.values["disk_free_bytes", ("run.ledger_dir",)] == 4096
    assert world.metrics.values["disk_free_bytes", ("run.dir",)] > 4096
    assert read_json(world.folder.status)["queue"]["free_bytes"] == 4096


def test_lost_actors_count_by_role() -> None:
    recorder = MemoryRecorder()
    telemetry = RunTelemetry(recorder, Config())
    for event in ({"kind": "actor_lost", "actor": "reward-1"}, {"kind": "actor_lost", "actor": "queue"}):
        telemetry.event(event)
    telemetry.event({"kind": "worker_lost", "worker": "rollout-3"})
    assert [recorder.values["restarts", (role,)] for role in ("reward", "queue", "rollout")] == [1, 1, 1]


def test_of_two_budgets_with_one_key_the_more_used_one_counts() -> None:
    assert merged_budgets([{"a": 0.5, "b": 0.1}, {"a": 0.2}]) == {"a": 0.5, "b": 0.1}


def test_the_largest_process_of_a_kind_is_in_the_metrics_of_a_step() -> None:
    found = memory_metrics({"rollout-0": 5.0, "rollout-1": 7.0, "driver": 3.0, "learner": 9.0})
    assert found == {"memory/rollout_bytes": 7.0, "memory/driver_bytes": 3.0}
