"""The lock of a run folder: one driver at a time may write to it."""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import dataclass
from typing import IO

LOCK_TIMEOUT_S = 1.0
"""Seconds that `lock` retries: `holder` takes the lock for an instant to see whether it is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The driver that holds the lock of a run folder."""

    pid: int
    host: str
    since: float  # seconds since the epoch

    def __str__(self) -> str:
        return (
            f"process {self.pid or '?'} on {self.host}, since {time.strftime('%H:%M:%S', time.localtime(self.since))}"
        )


def try_flock(handle: IO[str], kind: int) -> bool:
    """Take the lock of an open file without waiting; False if another process holds it."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_holder(handle: IO[str]) -> Holder:
    """The process that the lock file names."""
    handle.seek(0)
    try:
        return Holder(**json.loads(handle.read()))
    except (ValueError, TypeError):  # it has taken the lock and not written its pid yet
        return Holder(pid=0, host="this or another machine", since=time.time())
