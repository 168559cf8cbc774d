"""The process of one stage: its output in a log, signals handed on to it, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil

TICK_S = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Child:
    """A process in a session of its own, so that Ctrl-C of the terminal reaches it through the runner only, and once."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        """Raises OSError where it cannot be started. `log` is appended to."""
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, signum: int) -> None:
        """Hand a signal on; one that has ended already takes none."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    def wait(self, tick: Callable[[], None], patience: Callable[[], float | None]) -> int:
        """Its exit code; of one that a signal ended, minus the signal.

        `tick` is called twice a second. `patience` says until when (monotonic) it may take to end, None for no limit; then it is
        killed.
        """
        while True:
            try:
                code = self._process.wait(timeout=TICK_S)
            except subprocess.TimeoutExpired:
                tick()
                if (until := patience()) is not None and time.monotonic() > until:
                    self.kill()
            else:
                if code < 0:
                    self.kill()  # what it had started and could not end
                return code

    def kill(self) -> None:
        """End it and the processes of its session, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing behind: kill it if it still runs."""
        if self._process.poll() is None:
            self.kill()
            self._process.wait()


class Signals:
    """Notes SIGINT and SIGTERM while it is open, and hands each on to the child that there is.

    Example: `with Signals() as signals: signals.child = Child(...)`; afterwards `signals.code` is 130, 143 or None.
    """

    def __init__(self) -> None:
        self.child: Child | None = None
        self.first: int | None = None  # the first signal that came
        self.since = 0.0  # when, monotonic
        self._before: dict[int, Any] = {}

    @property
    def code(self) -> int | None:
        """The exit code that says which signal ended the recipe."""
        return None if self.first is None else 128 + self.first

    def __enter__(self) -> Self:
        for signum in SIGNALS:
            self._before[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *failure: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first, self.since = signum, time.monotonic()
        if self.child is not None:
            self.child.send(signum)


def started(pid: int) -> float | None:
    """When the process `pid` was started, in seconds since the epoch: with it, a number that is used again is told apart.

    None where there is no such process.
    """
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
