"""`r1ray serve`: a server as a child process, from its start to its end.

start --> /health answers (deadline) --> "ready" --> signal or death --> all of its processes gone
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType

from r1ray.errors import ConfigError, DeadlineExceeded, ProcessDied
from r1ray.util.formatting import printable
from r1ray.util.parent_death import with_parent_death_signal

POLL_S = 0.1
HEALTH_S = 2.0
"""Of one question for its health."""

TOLD_LINES = 25
"""Of a server that failed."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As seen from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def open_to_others(self) -> bool:
        return self.host not in LOOPBACK

    def check(self) -> None:
        """Raises ConfigError where it cannot be listened at."""
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
        except OSError as e:
            raise ConfigError(
                f"cannot listen at {self.host}, port {self.port}: {e.strerror}; choose with --host and --port"
            ) from e


class Server:
    """A server's process and all that it starts. Use it as a context manager: at the end none of them is left."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], address: Address, log: Path) -> None:
        """Starts it, with `environment` added to this process's own. It says to `log` what it says.

        Signals of the terminal do not reach it. Where this process is killed, it gets SIGTERM; so the main thread is to start it.
        """
        self._address = address
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                with_parent_death_signal(command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, deadline_s: float, stop: Event) -> None:
        """Until /health answers, or `stop` is set. Raises ProcessDied, and DeadlineExceeded after `deadline_s`."""
        until = time.monotonic() + deadline_s
        while not self._healthy() and not stop.is_set():
            self._check_alive()
            if time.monotonic() > until:
                raise DeadlineExceeded(
                    f"the server did not answer {self._address.url}/health within {deadline_s:g} s: give it longer with "
                    f"--start-s, or see what it says:\n{self._said()}"
                )
            stop.wait(POLL_S)

    def wait(self, stop: Event) -> None:
        """Until `stop` is set. Raises ProcessDied where the server ends before."""
        while not stop.wait(POLL_S):
            self._check_alive()

    def end(self, grace_s: float, hurry: Event) -> None:
        """Ask it to end; after `grace_s`, or as soon as `hurry` is set, what is left is killed."""
        until = time.monotonic() + grace_s
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        while self._process.poll() is None and time.monotonic() < until and not hurry.wait(POLL_S):
            pass
        self.kill()

    def kill(self) -> None:
        """Kill what is left of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *failure: object) -> None:
        self.kill()

    def _check_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise ProcessDied(f"the server (process {self.pid}) ended by itself with exit code {code}:\n{self._said()}")

    def _said(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return printable("\n".join(lines[-TOLD_LINES:]))

    def _healthy(self) -> bool:
        try:
            # The address is this machine's own, given on the command line.
            with urllib.request.urlopen(f"{self._address.url}/health", timeout=HEALTH_S) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def serve(
    command: Sequence[str],
    environment: Mapping[str, str],
    address: Address,
    log: Path,
    *,
    start_s: float,
    shutdown_s: float,
    on_ready: Callable[[], None],
) -> None:
    """Run the server until SIGINT, SIGTERM or SIGHUP, unless that one is ignored (nohup); a second one ends it at once.

    `on_ready` is called when it answers. Raises ConfigError where the address is taken, ProcessDied, DeadlineExceeded.
    """
    address.check()
    stop, hurry = Event(), Event()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        # The kernel and the shell may each tell that the terminal was closed: two of these are no hurry.
        (hurry if stop.is_set() and signum != signal.SIGHUP else stop).set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        with Server(command, environment, address, log) as server:
            server.wait_ready(start_s, stop)
            if not stop.is_set():
                on_ready()
            server.wait(stop)
            server.end(shutdown_s, hurry)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
