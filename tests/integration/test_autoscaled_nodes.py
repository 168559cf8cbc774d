"""`rollout.autoscale` on a cluster whose autoscaler starts and ends real nodes (raylets of their own)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.chaos.campaign import verify
from r1ray.control.autoscaling import DOWN_WINDOWS, UP_WINDOWS
from r1ray.run.metrics import read_metrics
from tests.integration.autoscaling_cluster import HEAD_ID, AutoscalingCluster, autoscaling_cluster
from tests.integration.driver import start
from tests.integration.models import random_model, write_model
from tests.integration.own_loss import SLOW

pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(300)]
CLEAN = {"exit_code": 0, "violations": []}

WINDOW_S = 1.5
IDLE_S = 4.0
"""Ray's autoscaler ends a node that has had no work for so long."""
NODE_S = 30.0
"""A node must be there so long after its worker was requested, and gone so long after it became idle."""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file exists, the learner is slow."""
    file = tmp_path / "slow"
    monkeypatch.setenv(SLOW, str(file))
    return file


@pytest.fixture
def cluster(slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AutoscalingCluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    head = {"CPU": 4.0, "learner": 1.0, "reward": 1.0, "rollout": 1.0}
    with autoscaling_cluster(tmp_path, head=head, node={"CPU": 2.0, "rollout": 1.0}, most=2, idle_s=IDLE_S) as made:
        yield made


def on_the_head(process: psutil.Process) -> bool:
    """Whether the raylet that started this worker is the head's."""
    raylet = process.parent()
    assert raylet is not None
    assert raylet.name() == "raylet"
    return any(HEAD_ID in word for word in raylet.cmdline())


def test_a_queue_that_runs_low_brings_a_node_and_a_full_one_lets_it_go(
    cluster: AutoscalingCluster, slow: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = (
        *(f"ray.{kind}_resources={{{kind}: 1}}" for kind in ("rollout", "learner", "reward")),
        *("reward_worker.workers=1", "data.evaluation=[]", "evaluation.every_steps=0", "checkpoint.every_steps=1000"),
        *("rollout.max_workers=2", f"rollout.autoscale={{min: 1, max: 2, window_s: {WINDOW_S}}}"),
        # A worker that generates one group at a time is slower than the learner, unless that is slowed down.
        *("rollout.groups_in_engine=1", "rollout.max_new_tokens=32", "queue.max_staleness=4"),
        "algorithm.loss=tests.integration.own_loss:paced",
    )
    model = write_model(random_model(seed=4), tmp_path / "model")
    driver = start(run, model, f"ray.address={cluster.address}", *settings)
    seen, began = driver.seen, time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {what}")

    driver.wait_for("a worker that serves", lambda: len(seen.serving()) == 1)
    say("one worker serves")
    assert len(cluster.raylets()) == 1
    driver.wait_for_event("scaled")  # one worker cannot feed this learner
    say("scaled up")
    driver.wait_for("the node of the new worker", lambda: len(cluster.raylets()) == 2)
    say("a node has come")
    node_s = time.time() - seen.events("scaled")[0]["time"]
    driver.wait_for("two workers that serve", lambda: len(seen.serving()) == 2)
    say("two workers serve")
    driver.wait_for("work of the new one", lambda: seen.leased("rollout-1") > 0)
    placed = {name: on_the_head(psutil.Process(pid)) for name, pid in seen.serving().items()}
    assert placed == {"rollout-0": True, "rollout-1": False}

    slow.touch()
    slowed = time.time()
    driver.wait_for_event("worker_left")
    say("a worker has left")
    left = time.monotonic()
    driver.wait_for("the node to go", lambda: len(cluster.raylets()) == 1)
    gone_s = time.monotonic() - left
    say("its node has gone")
    steps = len(read_metrics(run))
    driver.wait_for("steps with the worker that stays", lambda: len(read_metrics(run)) > steps + 2)
    driver.process.terminate()
    driver.end(0, within_s=60.0)
    say("the run has ended")

    up, down = seen.events("scaled")  # and nothing else: no swinging
    assert [(event["before"], event["workers"]) for event in (up, down)] == [(1, 2), (2, 1)]
    assert up["by"].startswith("rollout.autoscale: learner idle")
    (begun,) = [event for event in seen.events("worker_ready") if event["worker"] == "rollout-0"]
    assert up["time"] - begun["time"] >= UP_WINDOWS * WINDOW_S
    assert down["time"] - slowed >= (DOWN_WINDOWS - 1) * WINDOW_S  # a window may have begun before
    (gone,) = seen.events("worker_left")
    assert (gone["worker"], gone["drained"]) == ("rollout-1", True)
    assert node_s < NODE_S
    assert gone_s < IDLE_S + NODE_S
    assert verify(run) == CLEAN
