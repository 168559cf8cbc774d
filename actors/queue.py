"""Replay queue actor: the owner of the ledger. It only adds waiting: for capacity, and for a complete batch.

Every method may be repeated safely, so Ray may restart this actor and callers may retry. Its only state is on disk.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from actors.group_commit import GroupCommit
from actors.ledger_copies import LedgerCopies
from actors.replayed import ReplayedGroups
from r1ray.control.handles import Identity
from r1ray.errors import InfrastructureError
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.provide import provide, remove_superseded
from r1ray.ledger.records import CopyState, Lease, LedgerOpened, LedgerSettings, LedgerStatus, RolledBack
from r1ray.run.ledger import LedgerPlace
from r1ray.run.recording import Replay
from r1ray.telemetry.catalogue import LEDGER_PUT_SECONDS
from r1ray.telemetry.recorder import SILENT, Recorder
from r1ray.types import BatchManifest
from r1ray.util.machine import resident_bytes

LEASE_CHECK_S = 1.0
"""Interval of the checks for lapsed leases while a call waits."""

PROBLEM_S = 5.0
"""Seconds for which health checks report a failed write; callers retry it much sooner."""


class QueueOwner:
    """See `r1ray.control.handles.QueueApi`. Async methods run one at a time between awaits, as SQLite requires."""

    def __init__(
        self,
        place: LedgerPlace,
        settings: LedgerSettings,
        run_id: str,
        recorder: Recorder = SILENT,
        replay: Replay | None = None,
    ) -> None:
        """`replay`: the recorded run whose groups fill the batches; None: rollout and reward workers do."""
        self._place = place.expanded()
        self._recorded = None if replay is None else ReplayedGroups(replay)
        self._settings = settings
        self._run_id = run_id
        self._opening: asyncio.Task[LedgerOpened] | None = None
        self._puts = GroupCommit(lambda: self._ledger)
        self._providing = False  # the file of the ledger may be replaced
        self._recorder = recorder
        self._problem: tuple[float, str] | None = None  # time and text of the last failed write of a worker
        self._changed = asyncio.Condition()
        self._serving: dict[str, int] = {}  # worker -> policy it serves
        self._asking: set[str] = set()  # workers with room, whose calls of `lease` wait
        self._left: set[str] = set()  # released workers: names are not used again, but a call may come late
        self._closed = False

    @cached_property
    def _ledger(self) -> Ledger:
        """Opened at the first use, and again if that failed: Ray gives up an actor whose `__init__` fails."""
        if self._providing:
            raise InfrastructureError("the ledger is still being opened")
        return Ledger.open(self._place.file, self._settings, run_id=self._run_id)

    @cached_property
    def _copies(self) -> LedgerCopies | None:
        """None if the ledger is in the run folder."""
        place = self._place
        if place.copy is None:
            return None
        return LedgerCopies(self._ledger, place.file, place.copy, self._run_id, place.copy_every_s)

    async def open(self) -> LedgerOpened:
        """Find the ledger, restore it from its copy, or create it. A restored one is copied at once, see `provide`."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        try:
            return await asyncio.shield(self._opening)
        except Exception:
            self._opening = None  # a repeated call tries again
            raise

    async def _open(self) -> LedgerOpened:
        place = self._place
        place.refuse_network()
        await self.close()
        self._providing = True
        try:
            arguments = (place.file, place.run_dir, self._settings, self._run_id)
            source, copied_at = await asyncio.to_thread(provide, *arguments)
        finally:
            self._providing = False
        if self._copies is not None and source != "found":
            made = await self._copies.complete()
            if made.problem is not None:
                raise InfrastructureError(f"the ledger cannot be copied into the run folder: {made.problem}")
        remove_superseded(place.file, place.run_dir, self._run_id)
        status = self._ledger.status()
        return LedgerOpened(
            source=source,
            host=socket.gethostname(),
            path=str(place.file),
            copied_at=copied_at,
            stored=status.scored + status.taken + status.trained,
            bound_steps=status.bound_steps,
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around writes of workers, which repeat a failed one silently: keep its error for `identity`."""
        try:
            yield
        except InfrastructureError as e:
            self._problem = (time.monotonic(), str(e))
            raise

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, until: float) -> None:
        """Wait until something changed, a check for lapsed leases is due, or the loop's clock shows `until`."""
        loop = asyncio.get_running_loop()
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait(), min(LEASE_CHECK_S, max(0.0, until - loop.time())))
            except TimeoutError:
                self._ledger.expire()

    # -- rollout workers ----------------------------------------------------------------------------------------

    async def lease(self, worker_id: str, version: int, groups: int, held: list[str], wait_s: float) -> list[Lease]:
        """At most `groups` leases; waits up to `wait_s` for the first. The worker may report a newer version meanwhile.

        Workers that wait at the same time get equal parts of what may be leased: the first to call would get all of it,
        and the others would stand idle while its engine is full.

        `held`: the groups that the worker has been leased and has not delivered. The answer with its other leases was
        lost, with this process or because the worker gave up the call: these are returned first, without new ones.
        """
        if worker_id not in self._left:
            self._serving[worker_id] = version
        until = asyncio.get_running_loop().time() + wait_s
        self._asking.add(worker_id)
        try:
            while True:
                with self._writing():
                    leases = self._lease(worker_id, groups, held)
                if leases or asyncio.get_running_loop().time() >= until:
                    return leases
                await self._wait(until)
        finally:
            self._asking.discard(worker_id)

    def _lease(self, worker_id: str, groups: int, held: list[str]) -> list[Lease]:
        if self._closed or worker_id in self._left:
            return []
        again = self._ledger.redeliver_unacknowledged(worker_id, held, groups)
        return again or self._ledger.lease(worker_id, self._serving[worker_id], groups, sharers=len(self._asking))

    async def stop_leasing(self) -> None:
        """Lease no more prompts because the run is about to end. Groups in flight are still accepted."""
        self._closed = True

    async def serving(self, worker_id: str, version: int) -> None:
        """Record that the worker serves policy `version`."""
        if worker_id not in self._left:
            self._serving[worker_id] = version
        await self._notify()

    async def fail(self, group_id: str, reason: str, infrastructure: bool) -> None:
        """End a lease without a group, see `Ledger.fail`."""
        self._ledger.fail(group_id, reason, infrastructure=infrastructure)
        await self._notify()

    async def release_worker(self, worker_id: str, drained: bool) -> list[str]:
        """Queue the leases of a worker that died, or left on request (`drained`), again; returns their groups."""
        self._left.add(worker_id)
        self._serving.pop(worker_id, None)
        self._asking.discard(worker_id)
        released = self._ledger.release_worker(worker_id, drained=drained)
        await self._notify()
        return released

    async def release_all(self) -> list[str]:
        """Return every lease to the queue: a new driver has started, and no worker of an earlier one is left."""
        released = self._ledger.release_all()
        await self._notify()
        return released

    # -- reward workers -----------------------------------------------------------------------------------------

    async def put(self, payloads: list[bytes], atomic: bool) -> list[str]:
        """Store scored groups; `atomic`: all in one transaction. Returns the outcome of each by name."""
        began = time.perf_counter()
        with self._writing():
            outcomes = await self._puts.put(payloads, atomic)
        self._recorder.observe(LEDGER_PUT_SECONDS, time.perf_counter() - began)
        await self._notify()
        return [str(o) for o in outcomes]

    # -- learner and controller ---------------------------------------------------------------------------------

    async def take(self, step: int, wait_s: float) -> BatchManifest | None:
        """The batch of `step`, or None if it is not complete after `wait_s`."""
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            manifest = self._ledger.take(step)
            if manifest is None and self._recorded is not None and not self._closed:
                while self._recorded.fill(self._ledger, step):
                    await asyncio.sleep(0)  # health checks in between
                manifest = self._ledger.take(step)
            if manifest is not None:
                await self._notify()
                return manifest
            if asyncio.get_running_loop().time() >= until:
                return None
            await self._wait(until)

    async def payloads(self, group_ids: list[str]) -> list[bytes]:
        """The packed groups, in order."""
        return self._ledger.payloads(group_ids)

    async def publish(self, version: int, incarnation: int, digest: str) -> None:
        """Record that policy `version` is served."""
        self._ledger.publish(version, incarnation, digest)

    async def next_incarnation(self) -> int:
        """Count a start of the learner."""
        return self._ledger.next_incarnation()

    async def commit(self, policy_version: int, checkpoint: str, unknown: Sequence[BatchManifest] = ()) -> None:
        """Mark the groups of all steps below `policy_version` as trained, see `Ledger.commit`. A copy follows."""
        self._ledger.commit(policy_version, checkpoint, unknown)
        if self._copies is not None:
            self._copies.request()

    async def finish_copy(self) -> CopyState | None:
        """Wait for a copy of the present ledger, or for its failure; None if there are no copies."""
        return None if self._copies is None else await self._copies.complete()

    async def rollback(self, policy_version: int) -> RolledBack:
        """Return the groups of later steps to the queue."""
        rolled_back = self._ledger.rollback(policy_version)
        await self._notify()
        return rolled_back

    async def status(self) -> LedgerStatus:
        """Counts by state, and the oldest lease; if the ledger is outside the run folder, its copies and free space."""
        status = self._ledger.status()
        if self._copies is None:
            return status
        return replace(status, copy=self._copies.state, free_bytes=shutil.disk_usage(self._place.file.parent).free)

    def identity(self) -> Identity:
        """Answer a health check; `problem` is the last failed write of the last PROBLEM_S seconds."""
        recent = self._problem is not None and time.monotonic() - self._problem[0] < PROBLEM_S
        return {
            "pid": os.getpid(),
            "node": "",
            "problem": self._problem[1] if self._problem and recent else None,
            "rss_bytes": resident_bytes(),
        }

    async def close(self) -> None:
        """Close the ledger, if it is open; the next call opens it again."""
        copies: LedgerCopies | None = self.__dict__.pop("_copies", None)
        ledger: Ledger | None = self.__dict__.pop("_ledger", None)
        if copies is not None:
            await copies.stop()
        if ledger is not None:
            ledger.close()
