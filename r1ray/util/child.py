"""A child process in a session of its own: log file, signal forwarding, no process left behind."""

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

POLL_S = 0.5
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

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its session and process group."""
        return self._process.pid

    def send(self, signum: int) -> None:
        """Send a signal; do nothing if the process has already ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    def wait(self, on_poll: Callable[[], None], deadline: Callable[[], float | None]) -> int:
        """Wait for the process and return its exit code, or minus the signal that ended it.

        `on_poll` is called twice a second. `deadline` returns the monotonic time after which the
        process is killed, or None for no limit.
        """
        while True:
            try:
                code = self._process.wait(timeout=POLL_S)
            except subprocess.TimeoutExpired:
                on_poll()
                if (until := deadline()) is not None and time.monotonic() > until:
                    self.kill()
            else:
                if code < 0:
                    self.kill()  # descendants that it could not end itself
                return code

    def kill(self) -> None:
        """Kill the process and all others of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self.kill()
            self._process.wait()


class SignalForwarder:
    """Context manager that records SIGINT and SIGTERM and forwards each to the current child.

    Example: `with SignalForwarder() as signals: signals.child = ChildProcess(...)`; afterwards
    `signals.exit_code` is 130, 143 or None.
    """

    def __init__(self) -> None:
        self.child: ChildProcess | None = None
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
        if self.child is not None:
            self.child.send(signum)


def start_time(pid: int) -> float | None:
    """Return when the process `pid` was started, in seconds since the epoch; None if it does not run.

    Together with the pid it identifies a process even if the system reuses the number.
    """
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
