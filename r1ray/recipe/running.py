"""The processes of running stages, and the records of their attempts."""

from __future__ import annotations

import select
import shlex
import time
from collections.abc import Sequence

from r1ray.recipe.folder import StageAttempt, now
from r1ray.recipe.tasks import Task
from r1ray.util.child import ChildProcess, SignalForwarder, start_time

STOP_S = 60.0
"""Seconds that a stage may take to end after a signal, in addition to its own `deadlines.shutdown_s`."""
POLL_S = 0.5


class RunningStage:
    """A stage whose process was started. The attempt is recorded before and after."""

    def __init__(
        self, task: Task, attempt: StageAttempt, position: str, argv: list[str], signals: SignalForwarder
    ) -> None:
        """Start `argv`. `position`: such as 3/12."""
        self.task, self.attempt, self.position = task, attempt, position
        self._signals = signals
        self._entry = {"started": now(), "pid": None, "pid_started": None, "ended": None, "exit": None}
        attempt.attempts.append(self._entry)
        with task.log.open("a", encoding="utf-8") as log:
            log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(argv)}\n")
        self._began = time.monotonic()
        self.child = child = ChildProcess(argv, task.log)
        signals.children.add(child)
        try:
            if signals.first is not None:  # the signal came before there was a child to forward it to
                child.send(signals.first)
            self._entry.update(pid=child.pid, pid_started=start_time(child.pid))
            attempt.write(task)
        except BaseException:
            signals.children.discard(child)
            child.close()
            raise

    @property
    def seconds(self) -> float:
        """Since its process was started."""
        return time.monotonic() - self._began

    def ended(self) -> bool:
        """Whether its process has ended; one that does not end in time after a signal is killed."""
        grace = STOP_S + (self.task.config.deadlines.shutdown_s if self.task.config else 0.0)
        if self._signals.first is not None and time.monotonic() > self._signals.since + grace:
            self.child.kill()
        return self.child.poll() is not None

    def close(self) -> int:
        """Record the end, of which a process that still runs is killed. Returns the exit code, or minus the signal."""
        self._signals.children.discard(self.child)
        code = self.child.close()
        self._entry.update(ended=now(), exit=code, pid=None)
        self.attempt.write(self.task)
        return code


def wait_for_any(running: Sequence[RunningStage], signals: SignalForwarder) -> list[RunningStage]:
    """The stages that have ended, after POLL_S or at once if some have."""
    poll = select.poll()
    for stage in running:
        poll.register(stage.child, select.POLLIN)
    poll.poll(POLL_S * 1000)
    return [stage for stage in running if stage.ended()]
