"""Commands that tests start and look at while they run, and how their processes end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from benchmarks.chaos.machines import kill, tree

_started: list[subprocess.Popen[Any]] = []


def start_r1ray(*words: object, **options: Any) -> subprocess.Popen[Any]:
    """`r1ray ...`, what it prints in one pipe. It ends at the latest with the test or with the module whose fixture this is in.

    `options` are Popen's.
    """
    command = [sys.executable, "-m", "r1ray", *map(str, words)]
    process = subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options})
    _started.append(process)
    return process


@contextmanager
def all_ended() -> Iterator[None]:
    """Behind the block no command goes on that was started in it: one of a test that failed would disturb the next."""
    before = len(_started)
    try:
        yield
    finally:
        while len(_started) > before:
            process = _started.pop()
            if process.poll() is None:
                kill(tree(process.pid))
                process.wait(60.0)
            if process.stdout is not None:
                process.stdout.close()


def left_after(seconds: float, processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still live once all have ended, or so many seconds later.

    Dead is also what nobody has waited for: the first process of a container may not care for orphans.
    """
    until = time.monotonic() + seconds
    while (left := [p for p in processes if _lives(p)]) and time.monotonic() < until:
        time.sleep(0.02)
    return left


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
