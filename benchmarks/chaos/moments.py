"""Kinds of kills. Each function waits for its moment, freezes the process, kills it, and returns the Kill.

A function returns None and kills nothing if the moment does not occur in time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.chaos.machines import Machines, frozen, kill, process_title
from benchmarks.chaos.observe import ObservedRun

MOMENT_S = 20.0
"""Timeout of waiting for a moment."""

IN_HAND_S = 1.0
"""Seconds that a reward worker is frozen, so that groups queue up in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill."""

    kind: str
    pid: int
    at: float  # time just after the kill, in seconds since the epoch
    evidence: str  # observation while the process was frozen


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines, the observed run, and the random generator of a campaign."""

    machines: Machines
    seen: ObservedRun
    rng: random.Random

    def rollout(self) -> tuple[str, psutil.Process] | None:
        """Return a random serving rollout worker, or None."""
        serving = [(name, pid) for name, pid in sorted(self.seen.serving().items()) if self.machines.owns(pid)]
        if not serving:
            return None
        name, pid = self.rng.choice(serving)
        with suppress(psutil.NoSuchProcess):
            return name, psutil.Process(pid)
        return None

    def learners(self) -> list[psutil.Process]:
        """Return the processes of the learner ranks."""
        return self.machines.actors("LearnerProcess")


Moment = Callable[[Cluster], Kill | None]


def _wait(condition: Callable[[], bool], *, every_s: float = 0.05, at_most_s: float = MOMENT_S) -> bool:
    until = time.monotonic() + at_most_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(every_s)
    return True


def _kill(kind: str, process: psutil.Process, evidence: str) -> Kill:
    kill([process])
    return Kill(kind=kind, pid=process.pid, at=time.time(), evidence=evidence)


# -- rollout workers (vLLM's engine runs in the same process) -----------------------------------------------------


def rollout_idle(cluster: Cluster) -> Kill | None:
    """Freeze the learner until the staleness bound stops the worker, then kill the worker."""
    if (found := cluster.rollout()) is None:
        return None
    name, process = found
    with frozen(*cluster.learners()):
        if not _wait(lambda: cluster.seen.leased(name) == 0):
            return None
        with frozen(process):
            if cluster.seen.leased(name):
                return None
            return _kill("rollout worker, idle", process, f"{name} held no lease")


def rollout_generating(cluster: Cluster) -> Kill | None:
    """Kill a worker that holds leases."""
    if (found := cluster.rollout()) is None:
        return None
    name, process = found
    if not _wait(lambda: cluster.seen.leased(name) > 0, every_s=0.002):
        return None
    with frozen(process):
        leased = cluster.seen.leased(name)
        return _kill("rollout worker, generating", process, f"{name} held {leased} leases") if leased else None


def rollout_in_sync(cluster: Cluster) -> Kill | None:
    """Freeze a worker so that its weight sync cannot finish, then kill it."""
    seen = cluster.seen
    if (found := cluster.rollout()) is None or not _wait(lambda: seen.current_step() is not None, every_s=0.002):
        return None
    name, process = found
    with frozen(process):
        if (step := seen.current_step()) is None:
            return None
        due = f"weight sync of policy {step + 1}"
        if not _wait(lambda: seen.waiting_for() == due or seen.current_step() != step) or seen.current_step() != step:
            return None
        return _kill("rollout worker, in a weight sync", process, f"{name}: {due}")


# -- the learner --------------------------------------------------------------------------------------------------


def _kill_learner_in(
    cluster: Cluster, method: str, kind: str, *, sign: Callable[[], bool] = lambda: True
) -> Kill | None:
    """Kill a rank that executes `method` (Ray shows it in the process title) while `sign` is true."""
    title = f"ray::LearnerProcess.{method}"
    ranks = cluster.learners()

    def executing() -> list[psutil.Process]:
        return [rank for rank in ranks if process_title(rank).startswith(title)] if sign() else []

    if not _wait(lambda: bool(executing()), every_s=0.001):
        return None
    with frozen(*ranks):
        held = executing()
        return _kill(kind, cluster.rng.choice(held), title) if held else None


def learner_in_step(cluster: Cluster) -> Kill | None:
    """Kill a learner rank in a training step."""
    return _kill_learner_in(cluster, "train_step", "learner rank, in a step")


def learner_in_checkpoint(cluster: Cluster) -> Kill | None:
    """Kill a learner rank while a checkpoint is half written."""
    sign = cluster.seen.half_written_checkpoint
    return _kill_learner_in(cluster, "save_checkpoint", "learner rank, in a checkpoint", sign=sign)


def learner_in_sync(cluster: Cluster) -> Kill | None:
    """Kill a learner rank while it publishes weights."""
    return _kill_learner_in(cluster, "publish", "learner rank, in a weight sync")


# -- queue, rewards, nodes, driver ---------------------------------------------------------------------------------


def reward_verifying(cluster: Cluster) -> Kill | None:
    """Freeze a reward worker while groups arrive, then kill it with groups that are not stored."""
    if not (workers := cluster.machines.actors("RewardProcess")) or not _wait(lambda: cluster.seen.leased() > 0):
        return None
    with frozen(workers[0]):
        time.sleep(IN_HAND_S)
        leased = cluster.seen.leased()
        return _kill("reward worker, verifying", workers[0], f"{leased} groups were not stored") if leased else None


def queue_after_write(cluster: Cluster) -> Kill | None:
    """Kill the queue owner just after its write-ahead log changes, before the caller gets a reply."""
    if not (owners := cluster.machines.actors("QueueProcess")):
        return None
    before = cluster.seen.log_size()
    if not _wait(lambda: cluster.seen.log_size() != before, every_s=0.0):
        return None
    return _kill("queue owner, after a write", owners[0], "the write-ahead log had just changed")


def driver(cluster: Cluster) -> Kill | None:
    """Kill the driver."""
    waiting, pid = cluster.seen.waiting_for(), cluster.machines.kill_driver()
    return Kill(kind="driver", pid=pid, at=time.time(), evidence=waiting)


def worker_node(cluster: Cluster) -> Kill | None:
    """Kill the raylet of the worker node."""
    serving, pid = ", ".join(cluster.seen.serving()), cluster.machines.kill_node()
    return Kill(kind="raylet of the worker node", pid=pid, at=time.time(), evidence=f"{serving} served")


def head(cluster: Cluster) -> Kill | None:
    """Kill the whole head node and the driver."""
    waiting, pid = cluster.seen.waiting_for(), cluster.machines.kill_head()
    return Kill(kind="whole head", pid=pid, at=time.time(), evidence=waiting)


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
