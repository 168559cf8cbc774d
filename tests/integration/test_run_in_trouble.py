"""Signals, scaling, a worker that hangs and a learning rate that diverges, on real runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from benchmarks.chaos.campaign import verify
from benchmarks.chaos.machines import kill, process_title
from r1ray.errors import RetryBudgetExhausted, WorkersCannotStart
from r1ray.run.metrics import read_events, read_metrics
from tests.integration.driver import MOMENT_S, Driver, start
from tests.integration.models import random_model, write_model
from tests.integration.processes import processes_of
from tests.sockets import listening

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
CLEAN = {"exit_code": 0, "violations": []}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(random_model(seed=1), tmp_path_factory.mktemp("model"))


def scale(run: Path, workers: int) -> None:
    command = [sys.executable, "-m", "r1ray", "scale", str(run), f"rollout={workers}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_workers_come_and_go_and_a_signal_ends_the_run_with_a_checkpoint(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver = start(run, model, "rollout.max_workers=2", "deadlines.shutdown_s=60", "checkpoint.every_steps=1000")
    seen = driver.seen
    driver.wait_for("a step", lambda: seen.steps_with_batch() > 1)
    scale(run, 2)
    driver.wait_for("two workers that serve", lambda: len(seen.serving()) == 2)
    for pid in seen.serving().values():  # forks of one process, which has imported vLLM once
        parent = psutil.Process(pid).parent()
        assert parent is not None
        assert "r1ray.util.fork_server" in parent.cmdline()
    joined = max(seen.serving())
    driver.wait_for("work of the new one", lambda: seen.leased(joined) > 0)
    there = processes_of(driver.process)
    titles = [process_title(process) for process in there]
    assert [title for title in titles if "monitor.py" in title or "dashboard.py" in title] == []  # Ray's, for no use
    found = listening(there)
    assert any("raylet" in called for *_, called in found)
    assert {(address, called) for address, _, called in found if not ip_address(address).is_loopback} == set()
    scale(run, 1)
    driver.wait_for_event("worker_left")

    driver.process.send_signal(signal.SIGTERM)
    driver.end(0, within_s=120)
    (interrupted,) = seen.events("interrupted")
    saved = interrupted["saved"]
    assert interrupted["reason"] == "SIGTERM"
    assert saved == len(read_metrics(run)) > 1  # no step is lost, though no checkpoint was due
    assert verify(run) == CLEAN

    # The second signal ends it at once, wherever it is.
    driver = Driver(run, "--resume", run)
    driver.wait_for("steps after the resume", lambda: seen.steps_with_batch() > saved + 2)
    driver.process.send_signal(signal.SIGINT)
    driver.process.send_signal(signal.SIGTERM)
    driver.end(130, within_s=90)
    assert verify(run) == CLEAN
    done = seen.steps_with_batch()
    Driver(run, "--resume", run, f"run.steps={done + 1}").end(0)
    assert [row["step"] for row in read_metrics(run)] == list(range(done + 1))
    assert verify(run) == CLEAN


def stopped_with_leases(driver: Driver) -> psutil.Process:
    """Stop the worker while it holds leases.

    If it delivered the last of them just before, it runs on until it has some.
    """
    seen = driver.seen
    while True:
        driver.wait_for("a worker with leases", lambda: seen.steps_with_batch() > 1 and seen.leased("rollout-0") > 0)
        worker = psutil.Process(seen.serving()["rollout-0"])
        worker.send_signal(signal.SIGSTOP)
        if seen.leased("rollout-0") > 0:
            return worker
        worker.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("policy", ["restart", "abort"])
def test_a_worker_that_stands_still_is_diagnosed(model: Path, tmp_path: Path, policy: str) -> None:
    run = tmp_path / "run"
    driver = start(run, model, "recovery.stall_timeout_s=8", f"recovery.stall_policy={policy}")
    seen = driver.seen
    worker = stopped_with_leases(driver)
    try:
        if policy == "restart":
            driver.wait_for_event("stalled")
        else:
            driver.process.wait(MOMENT_S)
        (stalled,) = seen.events("stalled")
        diagnosis = (run / stalled["diagnosis"]).read_text()
        for words in (
            "Waiting for",
            "rollout-0 ",
            "lease ",
            "The last weight sync was of policy",
            "Stack of rollout-0",
        ):
            assert words in diagnosis, diagnosis
        if policy == "abort":
            assert "recovery.stall_timeout_s=8, recovery.stall_policy=abort" in driver.end(
                RetryBudgetExhausted.exit_code
            )
            return
        driver.wait_for("a worker in its place", lambda: bool(set(seen.serving()) - {"rollout-0"}))
        before = seen.steps_with_batch()
        driver.wait_for("steps", lambda: seen.steps_with_batch() > before)
    finally:
        kill([worker])
    driver.process.send_signal(signal.SIGTERM)
    driver.end(0)
    assert verify(run) == CLEAN


def test_a_rate_that_diverges_rolls_back_and_ends_with_the_reason(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver = start(run, model, "learner.optimizer.lr=1e30", "recovery.max_nan_steps=1", "recovery.max_nan_rollbacks=1")
    text = driver.end(RetryBudgetExhausted.exit_code)
    assert "RetryBudgetExhausted" in text
    assert "recovery.max_nan_rollbacks" in text
    assert "learner.optimizer.lr" in text
    events = read_events(run)
    assert [e["step"] for e in events if e["kind"] == "step_skipped"] == [0, 0]
    assert sum(e["kind"] == "rolled_back" for e in events) == 2
    assert verify(run) == CLEAN


def test_an_engine_that_cannot_start_is_named_at_the_first_try_and_ends_the_run(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver = start(run, model, "rollout.engine.extra.load_format=bitsandbyte")  # only the engine can refuse it
    driver.wait_for_event("worker_lost")
    driver.wait_for("a line on the terminal", lambda: "rollout-0 was lost: did not start: " in driver.said())
    text = driver.end(WorkersCannotStart.exit_code, within_s=600)
    assert "WorkersCannotStart" in text
    assert text.count("bitsandbyte") >= 2  # in the line of the first failure and in the error
    assert len(driver.seen.events("worker_lost")) == 3
