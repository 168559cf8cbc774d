"""Signal handlers of a driver: the first SIGINT, SIGTERM or SIGHUP ends the run gracefully, the second at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from r1ray.control.stop import Stop
from r1ray.run.view import View


def stop_on_signals(stop: Stop, view: View, after: str = "this step, with a checkpoint") -> None:
    """Install the handlers; a second call with the same `stop` keeps the count of signals.

    `after`: what the first signal still waits for, in the message to the user. The second raises KeyboardInterrupt.
    """

    def on_signal(signum: int, frame: FrameType | None) -> None:
        # The second signal may arrive while this runs for the first: `request` decides which is which.
        if stop.request(signal.Signals(signum).name):
            with suppress(
                RuntimeError
            ):  # the signal came during a write to a slow terminal: Python allows no second one
                view.line(f"Stopping after {after}; once more to stop at once.")
        else:
            stop.at_once()
            raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, on_signal)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup: the run outlives its terminal
        return
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]  # a closed one no longer counts as one

    def on_hangup(signum: int, frame: FrameType | None) -> None:
        silence(terminals)
        on_signal(signum, frame)

    signal.signal(signal.SIGHUP, on_hangup)


def silence(descriptors: Sequence[int]) -> None:
    """Send what is written to `descriptors` nowhere: a write to a closed terminal raises an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
