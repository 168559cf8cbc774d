"""Signal handlers of a driver: the first SIGINT or SIGTERM ends the run gracefully, the second at once."""

from __future__ import annotations

import signal
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
            view.line(f"Stopping after {after}; once more to stop at once.")
        else:
            stop.at_once()
            raise KeyboardInterrupt

    for either in (signal.SIGINT, signal.SIGTERM):
        signal.signal(either, on_signal)
