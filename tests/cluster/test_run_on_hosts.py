"""A run over hosts, from the operator's machine: submit, scale, lose a host, a link and the head, resume, end."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from r1ray.run.metrics import read_events, read_metrics
from tests.cluster.conftest import START_S, ray_up
from tests.cluster.hosts import Host, missing
from tests.cluster.operator import Operator, wait_for
from tests.integration.models import random_model, write_model

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
LACKS = missing()

MOMENT_S = 240.0
CUT_S = 20.0


class Watch:
    """What the run writes into its folder, which is on the common file system."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._began = time.monotonic()

    def steps(self) -> int:
        return len(read_metrics(self.run)) if (self.run / "metrics.jsonl").exists() else 0

    def events(self, kind: str) -> int:
        return sum(event["kind"] == kind for event in read_events(self.run))

    def log(self) -> str:
        return "\n".join(map(str, read_events(self.run)[-20:])) if (self.run / "events.jsonl").exists() else "no events"

    def wait_for_steps(self, more: int, after: str) -> None:
        wanted = self.steps() + more
        wait_for(f"{more} steps after {after}", lambda: self.steps() >= wanted, MOMENT_S, also=self.log)
        self.say(f"{more} steps after {after}")

    def wait_for_event(self, kind: str, count: int) -> None:
        wait_for(f"{count} events {kind}", lambda: self.events(kind) >= count, MOMENT_S, also=self.log)

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}")


def look_from_everywhere(by: Operator, address: str, run: Path) -> None:
    """The commands that an operator looks with, from the laptop and on the head. `pytest -s` shows what they print."""
    status = by.r1ray(address, "status", run)
    logs = by.r1ray(address, "logs", run, "rollout-1")
    places = f"run.dir={run} model.path={run.parents[1] / 'model'}"
    doctor = by.on_head(f"cd r1ray && python -m r1ray doctor --cluster tests/cluster/run.yaml {places} || true")
    trace = by.on_head(f"cd r1ray && python -m r1ray trace {run} 0")
    for text in (status, logs[-2000:], doctor, trace):
        print(text)
    assert "step" in status
    assert "pid=" in logs
    assert all(name in doctor for name in ("head", "gen1", "gen2", "train")) or doctor.count("10.77.0.") >= 4
    assert "trained" in trace


def has(host: Host, process: str) -> bool:
    return any(process in command for command in host.processes())


@pytest.mark.skipif(LACKS is not None, reason=f"this machine lacks {LACKS}, which hosts of namespaces need")
def test_a_run_survives_a_host_a_link_and_the_head(cluster: tuple[Operator, dict[str, Host]], folder: Path) -> None:
    by, host = cluster
    status = by.on_head("ray status")
    for resource in ("/1.0 head", "/8.0 reward", "/2.0 rollout", "/1.0 learner"):
        assert resource in status
    assert all(has(each, "raylet") for each in host.values())
    model, run = folder / "model", folder / "runs" / "tiny"
    places = (f"run.dir={run}", f"model.path={model}", "run.ledger_dir=/home/ledger")  # a disk of the head's own
    write_model(random_model(seed=1), model)
    seen = Watch(run)
    with by.dashboard() as address:
        by.r1ray(address, "submit", "tests/cluster/run.yaml", *places)
        seen.wait_for_steps(3, "the start")
        assert has(host["train"], "ray::LearnerProcess")
        first = "gen1" if has(host["gen1"], "ray::RolloutProcess") else "gen2"
        second = "gen2" if first == "gen1" else "gen1"
        assert not has(host[second], "ray::RolloutProcess")

        assert "1 -> 2" in by.r1ray(address, "scale", run, "rollout=2")
        wait_for("a worker on the other host", lambda: has(host[second], "ray::RolloutProcess"), MOMENT_S)
        wait_for("both to serve", lambda: read_metrics(run)[-1]["sync/workers"] == 2.0, MOMENT_S, also=seen.log)
        seen.say("two workers on two hosts")
        look_from_everywhere(by, address, run)

        host[first].crash()
        seen.wait_for_event("worker_lost", 1)
        seen.wait_for_steps(3, "the loss of a host")

        with host[second].cut_off():
            time.sleep(CUT_S)
        seen.wait_for_steps(3, f"a link that was cut for {CUT_S:g} s")

    for each in host.values():  # with the head, and faster than the others would notice that it is gone
        each.crash()
    assert list((host["head"].folder / "home" / "ledger").rglob("*.sqlite"))
    shutil.rmtree(host["head"].folder / "home" / "ledger")
    trained = seen.steps()
    ray_up(by)
    seen.say("the cluster is up again")
    with by.dashboard() as address:
        by.r1ray(address, "submit", "--resume", run)
        wait_for("steps after the resume", lambda: seen.steps() > trained, MOMENT_S, also=seen.log)
        seen.say(f"steps beyond {trained} after the loss of the head")
        assert seen.events("ledger_restored") == 1
        assert "interrupted" in by.r1ray(address, "stop", run)
    assert "every group is accounted for" in by.on_head(f"cd r1ray && python -m r1ray verify {run}")
    by.run("ray", "down", "-y", by.cluster_file)
    wait_for("Ray to leave all hosts", lambda: not any(has(each, "raylet") for each in host.values()), START_S)
    seen.say("nothing is left")
    shutil.rmtree(run)
