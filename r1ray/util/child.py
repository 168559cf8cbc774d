"""A child process in a session of its own: log file, signal forwarding, no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ChildProcess:
    """A process in its own session, so that Ctrl-C in the terminal reaches it only through `SignalForwarder`, once."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        """Start `argv` and append its output to `log`. Raises OSError if it cannot be started."""
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._descriptor = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its session and process group."""
        return self._process.pid

    def send(self, signum: int) -> None:
        """Send a signal; do nothing if the process has already ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    def fileno(self) -> int:
        """A descriptor that is readable once the process has ended, for select and poll."""
        return self._descriptor

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        code = self._process.poll()
        if code is not None and code < 0:
            self.kill()  # descendants that it could not end itself
        return code

    def kill(self) -> None:
        """Kill the process and all others of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> int:
        """Kill the process if it still runs. Returns its exit code, or minus the signal that ended it."""
        if self._process.poll() is None:
            self.kill()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        return self._process.wait()


class SignalForwarder:
    """Context manager that records SIGINT and SIGTERM and forwards each to the children.

    Example: `with SignalForwarder() as signals: signals.children.add(ChildProcess(...))`; afterwards
    `signals.exit_code` is 130, 143 or None.
    """

    def __init__(self) -> None:
        self.children: set[ChildProcess] = set()
        self.first: int | None = None  # the first signal received
        self.since = 0.0  # monotonic time of the first signal
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int | None:
        """The exit code that reports the first signal; None if there was none."""
        return None if self.first is None else 128 + self.first

    def __enter__(self) -> Self:
        for signum in SIGNALS:
            self._previous[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *failure: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first, self.since = signum, time.monotonic()
        for child in tuple(self.children):
            child.send(signum)


def start_time(pid: int) -> float | None:
    """Return when the process `pid` was started, in seconds since the epoch; None if it does not run.

    Together with the pid it identifies a process even if the system reuses the number.
    """
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
