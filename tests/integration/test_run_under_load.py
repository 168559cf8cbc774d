"""A worker ten times slower than the other, a host short of memory and a disk that is full, on real runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.chaos.campaign import verify
from r1ray.ledger import LedgerReader
from r1ray.run.metrics import read_metrics
from r1ray.run.status import explain, read_run_status
from r1ray.telemetry.catalogue import CATALOGUE, STEPS
from tests.integration.test_run_in_trouble import CLEAN, Driver, model, start

__all__ = ["model"]
pytestmark = [pytest.mark.integration, pytest.mark.alone, pytest.mark.timeout(900)]

LEASE_S = 12.0
RUNS_S, STANDS_S = 0.01, 0.09


def exported_by_each(driver: Driver) -> bool:
    """Whether Ray's endpoint has metrics of the driver, the queue and the reward workers, after steps of this run."""
    (connected,) = driver.seen.events("connected")
    with urllib.request.urlopen(f"http://{connected['metrics'][0]}/metrics", timeout=30) as answer:
        samples = [s for family in text_string_to_metric_families(answer.read().decode()) for s in family.samples]
    values = {sample.name: sample.value for sample in samples if "run" in sample.labels}
    owners = {metric.owner for metric in CATALOGUE.values() if set(metric.series) <= set(values)}
    return owners == {"driver", "queue", "reward worker"} and values[STEPS.exported] > 0


class Straggler(threading.Thread):
    """Lets a process run for a tenth of the time."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._ended = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not self._ended.is_set():
                self._process.send_signal(signal.SIGSTOP)
                self._ended.wait(STANDS_S)
                self._process.send_signal(signal.SIGCONT)
                self._ended.wait(RUNS_S)

    def end(self) -> None:
        self._ended.set()
        self.join(10.0)


def test_a_straggler_holds_no_step_back_for_longer_than_its_lease(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("rollout.workers=2", "rollout.max_workers=2", "rollout.max_new_tokens=32", "reward_worker.timeout_s=5")
    driver = start(run, model, *settings, f"queue.lease_timeout_s={LEASE_S:g}", "checkpoint.every_steps=1000")
    seen = driver.seen
    driver.wait_for("two workers that serve", lambda: len(seen.serving()) == 2)
    slow = Straggler(seen.serving()[max(seen.serving())])
    driver.wait_for("a few steps", lambda: len(read_metrics(run)) > 2)
    slow.start()
    try:
        begun = len(read_metrics(run))
        driver.wait_for("steps beside the straggler", lambda: len(read_metrics(run)) >= begun + 12)
        driver.wait_for("the metrics of every process that has some", lambda: exported_by_each(driver))
    finally:
        slow.end()
    driver.process.send_signal(signal.SIGTERM)
    driver.end(0)
    ends = [row["time"] for row in read_metrics(run)]
    beside = [later - earlier for earlier, later in pairwise(ends[begun - 1 : begun + 12])]
    with closing(LedgerReader.open(run / "ledger.sqlite")) as reader:
        dropped = reader.status().dropped_by_reason
    print(f"steps beside a straggler: {sorted(round(s, 2) for s in beside)} s; dropped {dropped}")
    assert max(beside) < LEASE_S + 15.0
    assert verify(run) == CLEAN


def test_a_host_short_of_memory_leases_nothing_until_it_has_room(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver = start(run, model, "recovery.max_memory_fraction=0.001")
    driver.wait_for_event("memory_pressure")
    (pressed,) = driver.seen.events("memory_pressure")
    assert pressed["leasing"] is False
    assert driver.seen.leased("rollout-0") == 0
    driver.process.send_signal(signal.SIGTERM)
    driver.end(0)
    assert not read_metrics(run)
    Driver(run, "--resume", run, "recovery.max_memory_fraction=0.99", "run.steps=2").end(0)
    assert [row["step"] for row in read_metrics(run)] == [0, 1]
    assert verify(run) == CLEAN


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A volume of 24 MiB, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder]).returncode:
        pytest.skip("a volume of its own can only be mounted as root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def top_up(filler: Path, left: int) -> None:
    """Let the file grow until its disk has at most `left` bytes of room."""
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while (free := shutil.disk_usage(filler.parent).free) > left:
            file.write(bytes(min(free - left, 1 << 16)))


def test_a_full_disk_pauses_the_run_until_there_is_room(model: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    driver = start(run, model, "checkpoint.every_steps=1", "checkpoint.keep=1", "logging.tensorboard=false")
    driver.wait_for("a few steps", lambda: len(read_metrics(run)) > 2)
    filler = small_disk / "filler"

    def paused() -> bool:
        top_up(filler, left=1 << 19)  # a checkpoint takes several times that, a record fits
        return bool(driver.seen.events("paused"))

    driver.wait_for("the run to pause", paused)
    assert "free space" in driver.seen.events("paused")[0]["reason"]
    driver.wait_for("a status that says so", lambda: driver.seen.status()["state"] == "paused")
    filler.unlink()
    driver.wait_for_event("resumed")
    after = len(read_metrics(run))
    driver.wait_for("steps once there is room", lambda: len(read_metrics(run)) > after + 2)
    driver.process.send_signal(signal.SIGTERM)
    driver.end(0)
    assert verify(run) == CLEAN


def test_a_disk_without_any_room_pauses_a_run_that_cannot_even_write_so(model: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    driver = start(
        run, model, "checkpoint.every_steps=100000", "recovery.stall_timeout_s=4", "recovery.stall_policy=abort"
    )
    driver.wait_for("a few steps", lambda: len(read_metrics(run)) > 2)
    filler = small_disk / "filler"

    def paused() -> bool:
        top_up(filler, left=0)
        return "\npaused: " in driver.said()

    driver.wait_for("the run to pause", paused)

    def told() -> bool:
        top_up(filler, left=0)  # what has been removed meanwhile made room
        return any("0 KiB are free on its disk" in line for line in explain(read_run_status(run)))

    driver.wait_for("a status that says so", told)
    began = time.monotonic()
    driver.wait_for("longer than a stall", lambda: time.monotonic() > began + 6.0)
    filler.unlink()
    driver.wait_for_event("resumed")
    (event,) = driver.seen.events("paused")
    assert "no space left to write" in event["reason"]
    assert not driver.seen.events("stalled")
    after = len(read_metrics(run))
    driver.wait_for("steps once there is room", lambda: len(read_metrics(run)) > after + 2)
    driver.process.send_signal(signal.SIGTERM)
    driver.end(0)
    assert verify(run) == CLEAN
