"""Watch for the notice that EC2 gives two minutes before it takes a spot instance back.

EC2 answers every process on the instance, on a link-local address. `PUT /latest/api/token` returns a token of IMDSv2.
`GET /latest/meta-data/spot/instance-action` with that token returns 404 while there is no notice, else
{"action": "terminate", "time": "2026-11-29T08:22:00Z"}. An expired token gets 401.

Source: Amazon EC2 user guide, "Spot Instance interruption notices" and "Use the Instance Metadata Service".
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime

from r1ray.errors import ConfigError, InfrastructureError

ADDRESS = "http://169.254.169.254"
TOKEN_S = 21600
"""Lifetime of a token: the longest that EC2 grants."""
REQUEST_S = 2.0
POLL_S = 5.0
"""AWS recommends a look every 5 seconds."""
FIRST_TRIES = 5

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the address is local to the host


class SpotNotice:
    """Requests of one instance. `seconds_left()` is the answer to one look."""

    def __init__(self, address: str = ADDRESS, *, now: Callable[[], float] = time.time) -> None:
        self._address = address
        self._now = now
        self._token: str | None = None

    def seconds_left(self) -> float | None:
        """Seconds until EC2 takes the instance back, at least 0; None without a notice.

        Raises InfrastructureError if the metadata service does not answer, or answers something else.
        """
        path = "/latest/meta-data/spot/instance-action"
        try:
            answer = self._get(path)
            if answer is None:  # the token has ended
                self._token = None
                answer = self._get(path)
        except urllib.error.HTTPError as e:
            e.close()
            if e.code == 404:
                return None
            raise InfrastructureError(f"{self._address}{path} answered {e.code} {e.reason}") from e
        except OSError as e:
            raise InfrastructureError(f"{self._address} does not answer: {e}") from e
        if answer is None:
            raise InfrastructureError(f"{self._address} refuses a token that it has just given")
        return self._seconds_left(answer)

    def _seconds_left(self, answer: str) -> float:
        try:
            until = datetime.fromisoformat(json.loads(answer)["time"]).timestamp()
        except (ValueError, KeyError, TypeError) as e:
            raise InfrastructureError(f"{self._address}: expected a notice with a time, got {answer[:200]!r}") from e
        return max(0.0, until - self._now())

    def _get(self, path: str) -> str | None:
        """The answer of a path; None if the token is refused."""
        if self._token is None:
            request = urllib.request.Request(f"{self._address}/latest/api/token", method="PUT")  # noqa: S310
            request.add_header("X-aws-ec2-metadata-token-ttl-seconds", str(TOKEN_S))
            with _NO_PROXY.open(request, timeout=REQUEST_S) as reply:
                self._token = reply.read().decode()
        request = urllib.request.Request(f"{self._address}{path}")  # noqa: S310
        request.add_header("X-aws-ec2-metadata-token", self._token)
        try:
            with _NO_PROXY.open(request, timeout=REQUEST_S) as reply:
                text: str = reply.read().decode()
                return text
        except urllib.error.HTTPError as e:
            if e.code != 401:
                raise
            e.close()
            return None


class SpotWatch:
    """Looks every POLL_S seconds in a thread of its own; `on_notice()` is called once, then the watch ends."""

    def __init__(
        self,
        notice: SpotNotice,
        on_notice: Callable[[], None],
        *,
        wait: Callable[[float], object] = time.sleep,
        log: Callable[[str], None] = lambda text: print(text, flush=True),
    ) -> None:
        self._notice = notice
        self._on_notice = on_notice
        self._wait = wait
        self._log = log
        self._silent = False  # the last look failed, and the log says so
        self._ends: float | None = None  # the end of the host, on the monotonic clock

    def stats(self) -> dict[str, float]:
        """`host_ends_s`: seconds until the host is taken away. Empty without a notice."""
        return {} if self._ends is None else {"host_ends_s": max(0.0, self._ends - time.monotonic())}

    def start(self) -> None:
        """Look once and start the thread. Raises ConfigError if no metadata service answers."""
        for left in range(FIRST_TRIES - 1, -1, -1):
            try:
                seconds = self._notice.seconds_left()
                break
            except InfrastructureError as e:
                if not left:
                    raise ConfigError(
                        f"rollout.spot_notice is aws, but this host has no usable EC2 metadata service: {e}. Set "
                        "rollout.spot_notice=none outside of EC2; in a container, raise HttpPutResponseHopLimit to 2"
                    ) from e
                self._wait(1.0)
        if seconds is not None:
            self._given(seconds)
            return
        threading.Thread(target=self._run, name="spot-notice", daemon=True).start()

    def _run(self) -> None:
        while not self.look():
            self._wait(POLL_S)

    def look(self) -> bool:
        """Poll once. Returns True if the notice has been given; a service that does not answer is polled again."""
        try:
            seconds = self._notice.seconds_left()
        except InfrastructureError as e:
            if not self._silent:
                self._log(f"the spot notice cannot be read, looking again every {POLL_S:g} s: {e}")
            self._silent = True
            return False
        self._silent = False
        if seconds is None:
            return False
        self._given(seconds)
        return True

    def _given(self, seconds: float) -> None:
        self._log(f"EC2 takes this host back in {seconds:.0f} s: no more prompts are leased")
        self._ends = time.monotonic() + seconds
        self._on_notice()
