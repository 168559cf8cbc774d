"""The actor that owns the ledger. It adds nothing to it but waiting: for capacity, and for a whole batch.

Every method may be repeated safely, so Ray may restart this actor and callers may retry; the ledger on disk is all its state.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from r1ray.control.handles import Identity
from r1ray.errors import InfrastructureError
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import Lease, LedgerSettings, LedgerStatus, RolledBack
from r1ray.types import BatchManifest

LEASE_CHECK_S = 1.0
"""How often lapsed leases are looked for while somebody waits."""

PROBLEM_S = 5.0
"""Seconds for which health checks report a failed write; callers retry it much sooner."""


class QueueOwner:
    """Async methods run one at a time between awaits, as SQLite wants it."""

    def __init__(self, path: str, settings: LedgerSettings, run_id: str) -> None:
        self._which = (path, settings, run_id)
        self._problem: tuple[float, str] | None = None  # when a write of somebody's failed the last time, and of what
        self._changed = asyncio.Condition()
        self._serving: dict[str, int] = {}  # worker -> policy it serves
        self._left: set[str] = set()  # released workers: names are not used again, but a call may come late
        self._closed = False

    @cached_property
    def _ledger(self) -> Ledger:
        """Opened when it is first needed, and tried again where that fails: an actor whose `__init__` fails, Ray gives up."""
        path, settings, run_id = self._which
        return Ledger.open(Path(path), settings, run_id=run_id)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around what a worker has written, which repeats it silently: so that `identity` can tell why."""
        try:
            yield
        except InfrastructureError as e:
            self._problem = (time.monotonic(), str(e))
            raise

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, until: float) -> None:
        """Until something changed, a check for lapsed leases is due, or the loop's clock shows `until`."""
        loop = asyncio.get_running_loop()
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), min(LEASE_CHECK_S, max(0.0, until - loop.time())))
            except TimeoutError:
                self._ledger.expire()

    # -- rollout workers ----------------------------------------------------------------------------------------

    async def lease(self, worker_id: str, version: int, groups: int, held: list[str], wait_s: float) -> list[Lease]:
        """At most `groups` leases; waits up to `wait_s` for the first. The worker may report a newer version meanwhile.

        `held`: the groups that the worker was leased and has not delivered. What else is leased to it was answered to nobody,
        by a call that died with this process or that the worker gave up: that comes first, and nothing new with it.
        """
        if worker_id not in self._left:
            self._serving[worker_id] = version
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            with self._writing():
                leases = self._lease(worker_id, groups, held)
            if leases or asyncio.get_running_loop().time() >= until:
                return leases
            await self._wait(until)

    def _lease(self, worker_id: str, groups: int, held: list[str]) -> list[Lease]:
        if self._closed or worker_id in self._left:
            return []
        again = self._ledger.redeliver_unacknowledged(worker_id, held, groups)
        return again or self._ledger.lease(worker_id, self._serving[worker_id], groups)

    async def stop_leasing(self) -> None:
        """The run is about to end: no prompt is leased any more. What is under way may still come."""
        self._closed = True

    async def serving(self, worker_id: str, version: int) -> None:
        if worker_id not in self._left:
            self._serving[worker_id] = version
        await self._notify()

    async def fail(self, group_id: str, reason: str, infrastructure: bool) -> None:
        self._ledger.fail(group_id, reason, infrastructure=infrastructure)
        await self._notify()

    async def release_worker(self, worker_id: str, drained: bool) -> list[str]:
        """Hand back the leases of a worker that died, or left as it was asked to (`drained`); returns their groups."""
        self._left.add(worker_id)
        self._serving.pop(worker_id, None)
        released = self._ledger.release_worker(worker_id, drained=drained)
        await self._notify()
        return released

    async def release_all(self) -> list[str]:
        """Hand back every lease: a new driver has begun, and nobody whom an earlier one started is left."""
        released = self._ledger.release_all()
        await self._notify()
        return released

    # -- reward workers -----------------------------------------------------------------------------------------

    async def put(self, payloads: list[bytes], atomic: bool) -> list[str]:
        """Store scored groups; `atomic`: all in one transaction. Returns the outcome of each by name."""
        with self._writing():
            outcomes = self._ledger.put_many(payloads) if atomic else [self._ledger.put(p) for p in payloads]
        await self._notify()
        return [str(o) for o in outcomes]

    # -- learner and controller ---------------------------------------------------------------------------------

    async def take(self, step: int, wait_s: float) -> BatchManifest | None:
        """The batch of `step`, or None where it is not whole after `wait_s`."""
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            manifest = self._ledger.take(step)
            if manifest is not None:
                await self._notify()
                return manifest
            if asyncio.get_running_loop().time() >= until:
                return None
            await self._wait(until)

    async def payloads(self, group_ids: list[str]) -> list[bytes]:
        return self._ledger.payloads(group_ids)

    async def publish(self, version: int, incarnation: int, digest: str) -> None:
        self._ledger.publish(version, incarnation, digest)

    async def next_incarnation(self) -> int:
        return self._ledger.next_incarnation()

    async def commit(self, policy_version: int, checkpoint: str) -> None:
        self._ledger.commit(policy_version, checkpoint)

    async def rollback(self, policy_version: int) -> RolledBack:
        rolled_back = self._ledger.rollback(policy_version)
        await self._notify()
        return rolled_back

    async def status(self) -> LedgerStatus:
        return self._ledger.status()

    def identity(self) -> Identity:
        """Answer a health check; `problem` is the last failed write of the last PROBLEM_S seconds."""
        recent = self._problem is not None and time.monotonic() - self._problem[0] < PROBLEM_S
        return {"pid": os.getpid(), "node": "", "problem": self._problem[1] if self._problem and recent else None}

    async def close(self) -> None:
        self._ledger.close()
