"""The kinds of death. Each function waits for its moment, holds it, kills, and returns what it struck; None where the moment did
not come in time, and nothing was killed then."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.chaos.machines import Machines, frozen, kill, process_title
from benchmarks.chaos.observe import Observed

MOMENT_S = 20.0
"""How long a moment is waited for."""

IN_HAND_S = 1.0
"""How long a reward worker is held, so that groups pile up in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """One kill."""

    kind: str
    pid: int
    at: float  # just after it, in seconds since the epoch
    evidence: str  # what was seen while the process was held


@dataclass(frozen=True, slots=True)
class World:
    machines: Machines
    seen: Observed
    rng: random.Random

    def rollout(self) -> tuple[str, psutil.Process] | None:
        """A random rollout worker that serves."""
        serving = [(name, pid) for name, pid in sorted(self.seen.serving().items()) if self.machines.owns(pid)]
        if not serving:
            return None
        name, pid = self.rng.choice(serving)
        with suppress(psutil.NoSuchProcess):
            return name, psutil.Process(pid)
        return None

    def learners(self) -> list[psutil.Process]:
        return self.machines.actors("LearnerProcess")


Moment = Callable[[World], Struck | None]


def _wait(condition: Callable[[], bool], *, every_s: float = 0.05, at_most_s: float = MOMENT_S) -> bool:
    until = time.monotonic() + at_most_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(every_s)
    return True


def _strike(kind: str, process: psutil.Process, evidence: str) -> Struck:
    kill([process])
    return Struck(kind=kind, pid=process.pid, at=time.time(), evidence=evidence)


# -- rollout workers (vLLM's engine runs in the same process) -----------------------------------------------------


def rollout_idle(world: World) -> Struck | None:
    """The learner is held until the staleness bound has stopped the worker."""
    if (found := world.rollout()) is None:
        return None
    name, process = found
    with frozen(*world.learners()):
        if not _wait(lambda: world.seen.leased(name) == 0):
            return None
        with frozen(process):
            if world.seen.leased(name):
                return None
            return _strike("rollout worker, idle", process, f"{name} held no lease")


def rollout_generating(world: World) -> Struck | None:
    if (found := world.rollout()) is None:
        return None
    name, process = found
    if not _wait(lambda: world.seen.leased(name) > 0, every_s=0.002):
        return None
    with frozen(process):
        leased = world.seen.leased(name)
        return _strike("rollout worker, generating", process, f"{name} held {leased} leases") if leased else None


def rollout_in_sync(world: World) -> Struck | None:
    """The worker is held, so that the sync that it takes part in cannot end."""
    seen = world.seen
    if (found := world.rollout()) is None or not _wait(lambda: seen.step_under_way() is not None, every_s=0.002):
        return None
    name, process = found
    with frozen(process):
        if (step := seen.step_under_way()) is None:
            return None
        due = f"weight sync of policy {step + 1}"
        if (
            not _wait(lambda: seen.waiting_for() == due or seen.step_under_way() != step)
            or seen.step_under_way() != step
        ):
            return None
        return _strike("rollout worker, in a weight sync", process, f"{name}: {due}")


# -- the learner --------------------------------------------------------------------------------------------------


def _learner_caught(world: World, method: str, kind: str, *, sign: Callable[[], bool] = lambda: True) -> Struck | None:
    """A rank that executes `method` now, which Ray puts into the title of its process, while there is also the `sign`."""
    title = f"ray::LearnerProcess.{method}"
    ranks = world.learners()

    def caught() -> list[psutil.Process]:
        return [rank for rank in ranks if process_title(rank).startswith(title)] if sign() else []

    if not _wait(lambda: bool(caught()), every_s=0.001):
        return None
    with frozen(*ranks):
        held = caught()
        return _strike(kind, world.rng.choice(held), title) if held else None


def learner_in_step(world: World) -> Struck | None:
    return _learner_caught(world, "train_step", "learner rank, in a step")


def learner_in_checkpoint(world: World) -> Struck | None:
    sign = world.seen.half_written_checkpoint
    return _learner_caught(world, "save_checkpoint", "learner rank, in a checkpoint", sign=sign)


def learner_in_sync(world: World) -> Struck | None:
    return _learner_caught(world, "publish", "learner rank, in a weight sync")


# -- queue, rewards, whole places ---------------------------------------------------------------------------------


def reward_verifying(world: World) -> Struck | None:
    """Held while workers hand it groups, so that it has some that are neither verified nor stored."""
    if not (workers := world.machines.actors("RewardProcess")) or not _wait(lambda: world.seen.leased() > 0):
        return None
    with frozen(workers[0]):
        time.sleep(IN_HAND_S)
        leased = world.seen.leased()
        return _strike("reward worker, verifying", workers[0], f"{leased} groups were not stored") if leased else None


def queue_after_write(world: World) -> Struck | None:
    """At the instant in which the ledger's log changes, before the caller can have heard of it."""
    if not (owners := world.machines.actors("QueueProcess")):
        return None
    before = world.seen.log_size()
    if not _wait(lambda: world.seen.log_size() != before, every_s=0.0):
        return None
    return _strike("queue owner, after a write", owners[0], "the write-ahead log had just changed")


def driver(world: World) -> Struck | None:
    waiting, pid = world.seen.waiting_for(), world.machines.kill_driver()
    return Struck(kind="driver", pid=pid, at=time.time(), evidence=waiting)


def worker_node(world: World) -> Struck | None:
    serving, pid = ", ".join(world.seen.serving()), world.machines.kill_node()
    return Struck(kind="raylet of the worker node", pid=pid, at=time.time(), evidence=f"{serving} served")


def head(world: World) -> Struck | None:
    waiting, pid = world.seen.waiting_for(), world.machines.kill_head()
    return Struck(kind="whole head", pid=pid, at=time.time(), evidence=waiting)


MOMENTS: dict[str, Moment] = {
    m.__name__: m
    for m in (
        rollout_idle,
        rollout_generating,
        rollout_in_sync,
        reward_verifying,
        queue_after_write,
        learner_in_step,
        learner_in_checkpoint,
        learner_in_sync,
        worker_node,
        head,
        driver,
    )
}
