"""What SIGINT and SIGTERM mean to a driver."""

from __future__ import annotations

import signal
from types import FrameType

from r1ray.control.stop import Stop
from r1ray.run.view import View


def stop_on_signals(stop: Stop, view: View, after: str = "this step, with a checkpoint") -> None:
    """The first SIGINT or SIGTERM ends the run after what is under way, the second at once. `after`: that, for people."""

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop.request(signal.Signals(signum).name)
        for either in (signal.SIGINT, signal.SIGTERM):
            signal.signal(either, signal.default_int_handler)
        view.line(f"Stopping after {after}; once more to stop at once.")

    for either in (signal.SIGINT, signal.SIGTERM):
        signal.signal(either, on_signal)
