"""Ray actor classes of the queue, the reward workers and the rollout workers, and the log file of every process.

Nothing here imports torch, so that a queue owner that died is back within a second or two.
"""

from __future__ import annotations

import faulthandler
import signal
from typing import Any

from actors.queue import QueueOwner
from actors.remote import RewardActor, RolloutActor, place
from actors.telemetry import RayRecorder
from r1ray.config.schema import Config
from r1ray.control.handles import Identity
from r1ray.ledger.records import LedgerSettings
from r1ray.run.ledger import LedgerPlace
from r1ray.run.recording import Replay
from r1ray.telemetry.logs import LogTarget, at, redirect
from r1ray.types import BatchManifest


def _begin(log: LogTarget) -> None:
    """Redirect the output of this process to `log` if its node has the run folder; SIGUSR1 writes all stacks there."""
    if log.path.parent.is_dir():  # on a node without it, Ray's session folder has the output
        redirect(log)
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2)


class Logged:
    """Mixed into an actor's class: the first argument is where its process writes."""

    def __init__(self, log: LogTarget, *args: Any, **kwargs: Any) -> None:
        _begin(log)
        super().__init__(*args, **kwargs)


class QueueProcess(Logged, QueueOwner):
    """The owner of the replay queue."""

    def __init__(self, log: LogTarget, ledger: LedgerPlace, settings: LedgerSettings, replay: Replay | None) -> None:
        super().__init__(log, ledger, settings, log.run_id, recorder=RayRecorder(log.run_id), replay=replay)

    def identity(self) -> Identity:
        """Answer a health check."""
        return {**super().identity(), **place()}

    async def take(self, step: int, wait_s: float) -> BatchManifest | None:
        """See `QueueOwner.take`."""
        at(step=step)
        return await super().take(step, wait_s)

    async def publish(self, version: int, incarnation: int, digest: str) -> None:
        """See `QueueOwner.publish`."""
        at(version=version)
        await super().publish(version, incarnation, digest)


class RewardProcess(Logged, RewardActor):
    """A reward worker."""

    def __init__(self, log: LogTarget, config: Config) -> None:
        super().__init__(log, config, recorder=RayRecorder(log.run_id))


class RolloutProcess(Logged, RolloutActor):
    """A rollout worker."""
