"""A run over hosts, from the operator's machine: refuse bad hosts, submit, follow, scale, lose a host, a link and the
head, upgrade, resume, end.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import r1ray
from r1ray.errors import InfrastructureError
from r1ray.run.metrics import read_events, read_metrics
from tests.cluster.conftest import START_S, ray_up
from tests.cluster.hosts import Host, missing
from tests.cluster.operator import Operator, wait_for
from tests.integration.models import random_model, write_model

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
LACKS = missing()

MOMENT_S = 240.0
CUT_S = 20.0
REFUSED_S = 60.0
"""All nodes are looked at in so long, from the command line on: two cores serve five hosts here."""
TUNNEL_S = 60.0
"""A command ends in so long after its tunnel broke: see r1ray/launch/jobs.py."""
CODE = "rewards=[{name: accuracy, params: {verifier: code}}]"
CHANGES = ("logging.json=true", "rollout.autoscale.min=1", "rollout.autoscale.max=2")
VERSION = f'__version__ = "{r1ray.__version__}"'


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
    look = f"cd r1ray && python -m r1ray doctor --cluster tests/cluster/run.yaml {places}"
    doctor = by.on_head(f"{look} || true")
    written = run.parents[1] / "doctor.json"
    by.on_head(f"{look} --json > {written} || true")
    found = json.loads(written.read_text())
    trace = by.on_head(f"cd r1ray && python -m r1ray trace {run} 0")
    for text in (status, logs[-2000:], doctor, trace):
        print(text)
    assert "step" in status
    assert "pid=" in logs
    assert all(name in doctor for name in ("head", "gen1", "gen2", "train")) or doctor.count("10.77.0.") >= 4
    assert {f["verdict"] for f in found["findings"] if f["what"] == "versions"} == {"ok"}
    assert len({f["node"] for f in found["findings"] if f["what"] == "versions"}) == 4
    assert [pair["gb_s"] > 0 for pair in found["pairs"]] == [True] * 12  # directed pairs of four hosts
    print(json.dumps(found)[:3000])
    assert "trained" in trace


def refuse_bad_hosts(by: Operator, host: dict[str, Host], places: tuple[str, ...], model: Path, run: Path) -> float:
    """Seconds until a start names a host without the model, one with another version and one without the sandbox."""
    other = host["gen2"].folder / "home" / "r1ray" / "r1ray" / "__init__.py"
    same = other.read_text()
    other.write_text(same.replace(VERSION, '__version__ = "0.0.0"'))
    sandbox = shutil.which("bwrap") or "/usr/bin/bwrap"
    host["gen1"].inside("mount", "-t", "tmpfs", "tmpfs", str(model))
    host["head"].inside("mount", "--bind", "/dev/null", sandbox)
    began = time.monotonic()
    command = f"r1ray train tests/cluster/run.yaml {' '.join(places)} '{CODE}'"
    refused = by.on_head(f"cd r1ray && python -m {command} 2>&1 || echo exit code $?")
    seconds = time.monotonic() - began
    host["head"].inside("umount", sandbox)
    host["gen1"].inside("umount", str(model))
    other.write_text(same)
    print(refused)
    assert "node 10.77.0.2: model.path: " in refused
    assert "node 10.77.0.3: version of r1ray: 0.0.0 " in refused
    assert "node 10.77.0.1: sandbox: " in refused
    assert "exit code 2" in refused
    assert not run.exists()
    assert not any(has(each, "ray::RolloutProcess") or has(each, "ray::LearnerProcess") for each in host.values())
    return seconds


def upgrade(tree: Path) -> str:
    """Change the version of r1ray in a working tree; returns the new line."""
    file = tree / "r1ray" / "__init__.py"
    new = f'__version__ = "{r1ray.__version__}.next"'
    assert VERSION in file.read_text()
    file.write_text(file.read_text().replace(VERSION, new))
    return new


def has(host: Host, process: str) -> bool:
    return any(process in command for command in host.processes())


def lose_a_host_and_a_link(by: Operator, host: dict[str, Host], address: str, seen: Watch) -> None:
    """A run that has just begun gets a second worker, loses the host of the first,
    and the link to the other for a while.
    """
    run = seen.run
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
    refused_s = refuse_bad_hosts(by, host, places, model, run)
    seen.say(f"bad hosts are refused after {refused_s:.0f} s")
    assert refused_s < REFUSED_S
    with ExitStack() as beside:
        with by.dashboard() as address:
            by.r1ray(address, "submit", "tests/cluster/run.yaml", *places)
            followed = beside.enter_context(by.following("cut", "logs", run, "-f", "--address", address))
            lose_a_host_and_a_link(by, host, address, seen)
            assert followed.process.poll() is None
        for each in host.values():  # with the head, and faster than the others would notice that it is gone
            each.crash()
        ended = followed.end(TUNNEL_S)
    print(followed.said()[-2000:])
    assert ended == InfrastructureError.exit_code  # with the tunnel, and by name
    assert any(words in followed.said() for words in ("broke off", "no Ray dashboard answers"))
    assert "learner-0 | " in followed.said()
    assert list((host["head"].folder / "home" / "ledger").rglob("*.sqlite"))
    shutil.rmtree(host["head"].folder / "home" / "ledger")
    trained, version = seen.steps(), upgrade(by.tree)
    ray_up(by)
    seen.say("the cluster is up again, with another version of r1ray")
    for each in host.values():
        assert version in (each.folder / "home" / "r1ray" / "r1ray" / "__init__.py").read_text()
    with by.dashboard() as address:
        by.r1ray(address, "submit", "--resume", run, *CHANGES)
        with by.following("all", "logs", run, "driver", "-f", "--address", address) as followed:
            wait_for("steps after the resume", lambda: seen.steps() > trained, MOMENT_S, also=seen.log)
            seen.say(f"steps beyond {trained} after the loss of the head")
            assert seen.events("ledger_restored") == 1
            refused = by.r1ray(address, "scale", run, "rollout=1", code=2)
            print(refused)
            assert "rollout.autoscale" in refused
            assert "interrupted" in by.r1ray(address, "stop", run)
            assert followed.end(MOMENT_S) == 0  # with the run
    objects = [json.loads(line) for line in followed.said().splitlines() if line.startswith("{")]
    print(followed.said()[-3000:])
    assert {each["actor"] for each in objects} == {"driver"}
    assert any("Stopping" in each["message"] or "interrupted" in each["message"] for each in objects)
    assert max(each["step"] or 0 for each in objects) > trained
    lines = (run / "logs" / "learner-0.log").read_text().splitlines()
    assert {json.loads(line)["actor"] for line in lines if line.startswith("{")} == {"learner-0"}
    assert "every group is accounted for" in by.on_head(f"cd r1ray && python -m r1ray verify {run}")
    by.run("ray", "down", "-y", by.cluster_file)
    wait_for("Ray to leave all hosts", lambda: not any(has(each, "raylet") for each in host.values()), START_S)
    seen.say("nothing is left")
    shutil.rmtree(run)
