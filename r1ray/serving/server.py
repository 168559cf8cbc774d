"""`r1ray serve`: runs a server as a child process.

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
HEALTH_TIMEOUT_S = 2.0
"""Timeout of one health check."""

LOG_LINES_SHOWN = 25
"""Last lines of the log in the error of a server that failed."""

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
        """Whether other machines can reach it."""
        return self.host not in LOOPBACK

    def require_key(self, key: str | None) -> None:
        """Raise ConfigError if it would listen to other machines without a `key`."""
        if self.open_to_others and not key:
            raise ConfigError(
                f"--host {self.host}: everyone who can reach this machine could use the server; set VLLM_API_KEY to "
                "the key "
                "that clients must send, or leave --host out"
            )

    def check(self) -> None:
        """Raise ConfigError if this machine cannot listen there."""
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
        except OSError as e:
            raise ConfigError(
                f"cannot listen at {self.host}, port {self.port}: {e.strerror}: choose others with --host and --port"
            ) from e


class Server:
    """A server process and its descendants. As a context manager it leaves none of them behind."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], address: Address, log: Path) -> None:
        """Start the server with `environment` added to this process's own; its output goes to `log`.

        Signals of the terminal do not reach it. It gets SIGTERM when this process is killed. For that the main thread
        must start it.
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
        """Process id, which is also the id of its process group."""
        return self._process.pid

    def wait_ready(self, deadline_s: float, stop: Event) -> None:
        """Wait until /health answers or `stop` is set. Raises ProcessDied, or DeadlineExceeded after `deadline_s`."""
        until = time.monotonic() + deadline_s
        while not self._healthy() and not stop.is_set():
            self._check_alive()
            if time.monotonic() > until:
                raise DeadlineExceeded(
                    f"the server did not answer {self._address.url}/health within {deadline_s:g} s: raise --start-s, "
                    "or "
                    f"see the end of its log:\n{self._log_tail()}"
                )
            stop.wait(POLL_S)

    def wait(self, stop: Event) -> None:
        """Wait until `stop` is set. Raises ProcessDied if the server ends before."""
        while not stop.wait(POLL_S):
            self._check_alive()

    def end(self, grace_s: float, hurry: Event) -> None:
        """Send SIGTERM, and kill the remaining processes after `grace_s` or as soon as `hurry` is set."""
        until = time.monotonic() + grace_s
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        while self._process.poll() is None and time.monotonic() < until and not hurry.wait(POLL_S):
            pass
        self.kill()

    def kill(self) -> None:
        """Kill its remaining processes."""
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
            raise ProcessDied(f"the server (process {self.pid}) ended with exit code {code}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return printable("\n".join(lines[-LOG_LINES_SHOWN:]))

    def _healthy(self) -> bool:
        try:
            # The address is this machine's own, given on the command line.
            with urllib.request.urlopen(f"{self._address.url}/health", timeout=HEALTH_TIMEOUT_S) as answer:  # noqa: S310
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
    """Run the server until SIGINT, SIGTERM or SIGHUP (unless nohup ignores that); a second signal ends it at once.

    `on_ready` is called when it answers. Raises ConfigError if the address is in use, ProcessDied, DeadlineExceeded.
    """
    address.check()
    stop, hurry = Event(), Event()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        # The kernel and the shell may each send SIGHUP when a terminal is closed, so a second one does not hurry the
        # end.
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
