"""Ray actor classes of the queue, the reward workers and the rollout workers, and the log file of every process.

Nothing here imports torch, so that a queue owner that died is back within a second or two.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path
from typing import Any

from actors.queue import QueueOwner
from actors.remote import RewardActor, RolloutActor, place
from r1ray.control.handles import Identity


def _begin(log: Path) -> None:
    """Redirect the output of this process to `log` if its node has the run folder; SIGUSR1 writes all stacks there."""
    if log.parent.is_dir():  # on a node without it, Ray's session folder has the output
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2)


class Logged:
    """Mixed into an actor's class: the first argument is the file that its process writes to."""

    def __init__(self, log: Path, *args: Any, **kwargs: Any) -> None:
        _begin(log)
        super().__init__(*args, **kwargs)


class QueueProcess(Logged, QueueOwner):
    """The owner of the replay queue."""

    def identity(self) -> Identity:
        """Answer a health check."""
        return {**super().identity(), **place()}


class RewardProcess(Logged, RewardActor):
    """A reward worker."""


class RolloutProcess(Logged, RolloutActor):
    """A rollout worker."""
