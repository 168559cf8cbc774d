"""Start and end `r1ray` commands in tests."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.machines import kill, tree
from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.preflight.fork_servers import (
    imports_of,
    of_commands,
    python_of,
    r1ray_command,
    start_fork_server,
    start_fork_servers,
)

_started: list[subprocess.Popen[str]] = []


@cache
def loop_config() -> Config:
    """That of loop.yaml; runs with the same imports share its fork servers."""
    return load_config([str(Path(__file__).parent / "loop.yaml")], ["run.dir=run", "model.path=model"]).config


@cache
def share_fork_servers() -> None:
    """Have the commands of this test session be forked from servers that have imported what they and their workers
    need, as the stages of a recipe are: importing is more than half of what a short run computes. Returns when they
    have.
    """
    start_fork_server(of_commands())
    config = loop_config()
    start_fork_servers([(config, "train")])
    for imports in (of_commands(), imports_of("rollout", config), imports_of("learner", config)):
        command = [*shlex.split(python_of(imports) or ""), "-m", "this"]
        until = time.monotonic() + 240.0
        while message := subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stderr:
            assert time.monotonic() < until, message  # it was not forked: the server still imports


def processes_of(command: subprocess.Popen[str]) -> list[psutil.Process]:
    """The command and its descendants, and the workers that were forked for it: it is the only one of this session."""
    forked: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # a zombie has no command line
            if "r1ray.util.fork_server" in child.cmdline():
                forked += child.children(recursive=True)
    return [*tree(command.pid), *forked]


def start_r1ray(*words: object, **options: Any) -> subprocess.Popen[str]:
    """Start `r1ray ...` with its output as text in one pipe. It ends with the test, or with the module of its fixture.

    `options` are Popen's.
    """
    share_fork_servers()
    command = [*r1ray_command(), *map(str, words)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    process: subprocess.Popen[str] = subprocess.Popen(command, **{**pipe, **options})
    _started.append(process)
    return process


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Return the output of a command, which must end with exit code `code`."""
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


def wait_for(process: subprocess.Popen[str], what: str, seen: Callable[[], bool]) -> None:
    """Wait until `seen` returns true; the command must not end before."""
    until = time.monotonic() + 300
    while not seen():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"{what} did not come"
        time.sleep(0.002)


@contextmanager
def all_ended() -> Iterator[None]:
    """End every command that was started in the block, so that a failed test does not disturb the next one."""
    before = len(_started)
    try:
        yield
    finally:
        while len(_started) > before:
            process = _started.pop()
            if process.poll() is None:
                kill(processes_of(process))
                process.wait(60.0)
            if process.stdout is not None:
                process.stdout.close()


def left_after(seconds: float, processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that are still alive after at most `seconds`.

    A zombie counts as ended: the first process of a container may not reap orphans.
    """
    until = time.monotonic() + seconds
    while (left := [p for p in processes if _lives(p)]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
