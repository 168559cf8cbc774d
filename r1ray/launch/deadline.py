"""A deadline for calls of Ray that have none of their own, and that no exception can interrupt.

Ray's driver waits in C++ for the answers of the cluster's head: without limit for a head that hangs, and if the head is
gone it ends the process 60 s later, without a word. So a thread ends this process by name instead.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from r1ray.errors import InfrastructureError

KILL_S = 5.0


@contextmanager
def ends_within(seconds: float, message: Callable[[], str], expired: Callable[[str], object]) -> Iterator[None]:
    """End this process with the exit code of an InfrastructureError if the block takes longer.

    Before that, `expired` gets the message, to record it, and all processes that this one has started are killed.
    """

    def end() -> None:
        text = message()
        print(f"{InfrastructureError.__name__}: {text}", file=sys.stderr, flush=True)
        with suppress(Exception):  # whatever it does, this process ends
            expired(text)
        started: list[psutil.Process] = psutil.Process().children(recursive=True)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=KILL_S)
        os._exit(InfrastructureError.exit_code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
