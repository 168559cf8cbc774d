"""Which workers are forked, and from which server."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from r1ray.config.schema import Config
from r1ray.preflight import fork_servers
from r1ray.preflight.fork_servers import SERVERS, imports_of, python_of, start_fork_servers

DEADLINE_S = 30.0


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Of a run on CPUs, whose servers import little and end with the test."""
    monkeypatch.setattr(fork_servers, "MODULES", {"rollout": ("json",), "learner": ("csv",)})
    monkeypatch.setenv(SERVERS, "{}")
    made = Config()
    made.rollout.num_gpus = made.learner.num_gpus = 0.0
    others.extend(psutil.Process().children())
    yield made
    for process in servers():
        process.kill()
        process.wait(DEADLINE_S)
    others.clear()


others: list[psutil.Process] = []
"""Processes that tests before this one have started."""


def servers() -> list[psutil.Process]:
    return [process for process in psutil.Process().children() if process not in others]


def assert_forked_with(module: str, config: Config, folder: Path) -> None:
    """A learner's program is a fork of the only server, which has imported `module`."""
    python = python_of(imports_of("learner", config))
    assert python is not None
    script = folder / "script.py"
    script.write_text(f"import os, sys; print(os.getppid(), {module!r} in sys.modules)")
    out = subprocess.run([*shlex.split(python), script], capture_output=True, text=True, timeout=DEADLINE_S).stdout
    assert out.split() == [str(servers()[0].pid), "True"]


def test_workers_on_gpus_or_on_other_machines_are_not_forked(config: Config) -> None:
    assert imports_of("rollout", config) is not None
    config.rollout.num_gpus = 1.0
    assert imports_of("rollout", config) is None
    assert imports_of("learner", config) is not None
    config.ray.address = "10.0.0.1:6379"
    assert imports_of("learner", config) is None
    start_fork_servers([(config, "train")])
    assert json.loads(os.environ[SERVERS]) == {}


def test_a_command_starts_the_servers_of_its_processes_and_its_children_find_them(
    config: Config, tmp_path: Path
) -> None:
    start_fork_servers([(config, "sft"), (config, "sft")])
    assert python_of(imports_of("rollout", config)) is None
    assert_forked_with("csv", config, tmp_path)
    start_fork_servers([(config, "train")])  # a stage of a recipe, which inherits the environment
    assert len(json.loads(os.environ[SERVERS])) == 2


def test_another_environment_at_import_is_another_server(config: Config) -> None:
    start_fork_servers([(config, "sft")])
    config.learner.num_cpus = 4.0  # OMP_NUM_THREADS
    assert python_of(imports_of("learner", config)) is None


def test_a_learner_of_two_cores_is_forked_too(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NumPy's OpenBLAS reads OMP_NUM_THREADS at its import, and a process with threads cannot be forked."""
    monkeypatch.setattr(fork_servers, "MODULES", {"rollout": ("json",), "learner": ("numpy",)})
    config.learner.num_cpus = 2.0
    start_fork_servers([(config, "sft")])
    assert_forked_with("numpy", config, tmp_path)


def test_a_dead_server_is_reported_and_not_used(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    start_fork_servers([(config, "sft")])
    (server,) = servers()
    server.send_signal(signal.SIGKILL)
    until = time.monotonic() + DEADLINE_S
    while server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert python_of(imports_of("learner", config)) is None
    assert "the fork server at" in capsys.readouterr().err
