"""The ledger of a run: one owner, one transaction a call, nothing kept in memory that is not on the disk."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.ledger import batches, intake, leases
from r1ray.ledger.reader import read_status
from r1ray.ledger.records import Lease, LedgerSettings, LedgerStatus, PutOutcome, RolledBack
from r1ray.ledger.storage import (
    check_file,
    connect_writer,
    create_file,
    read_meta,
    read_settings,
    transaction,
    write_meta,
)
from r1ray.types import BatchManifest

Clock = Callable[[], float]


class Ledger:
    """Leases prompt indices, keeps what comes back, hands out batches, and remembers what was trained.

    A worked example with B = 2 groups a step and staleness bound s = 0:

        lease("w0", version=0, max_groups=8)  -> 0-1, 1-1      (0 + 0 + 1) * 2 = 2 may be admitted for policy 0
        put(1-1), then put(0-1)                                both scored; again put(1-1): "duplicate"
        take(0)                               -> 1-1, 0-1      in order of completion; now bound to step 0 for good
        lease("w0", version=0, max_groups=8)  -> nothing       a group of policy 0 would be too old for step 1
        lease("w0", version=1, max_groups=8)  -> 2-1, 3-1
        release_worker("w0")                  -> 2-1, 3-1      dropped; prompts 2 and 3 are queued
        lease("w1", version=1, max_groups=1)  -> 2-2           queued prompts first, under a new attempt
        commit(1, "step_000001")                               1-1 and 0-1 are trained
        rollback(0)                                            no use for that checkpoint: they are scored again
        take(0)                               -> 1-1, 0-1      the very same batch

    Every call may be repeated after a failure or a crash. Call from one thread at a time. Any call may raise DiskFull,
    or another InfrastructureError or IntegrityError that names the file; it changed nothing then.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, settings: LedgerSettings, clock: Clock) -> None:
        """Use `create` or `open`."""
        self._db = db
        self._path = path
        self._settings = settings
        self._clock = clock

    @classmethod
    def create(cls, path: Path, settings: LedgerSettings, *, run_id: str, clock: Clock = time.time) -> Ledger:
        """A new ledger at `path`; IntegrityError where there is one. `clock` gives seconds since the epoch."""
        create_file(path, run_id, settings)
        return cls.open(path, run_id=run_id, clock=clock)

    @classmethod
    def open(
        cls,
        path: Path,
        settings: LedgerSettings | None = None,
        *,
        run_id: str | None = None,
        clock: Clock = time.time,
    ) -> Ledger:
        """The ledger at `path`, under new `settings` where given.

        Raises IntegrityError, and changes nothing on the disk, where the file is no ledger, has another schema, or is
        not of run `run_id` (None: any); ConfigError where `groups_per_step` differs from what the run began with.
        """
        check_file(path, run_id)
        db = connect_writer(path)
        try:
            with transaction(db, path, "IMMEDIATE"):
                stored = read_settings(db)
                if settings is not None and settings != stored:
                    if settings.groups_per_step != stored.groups_per_step:
                        raise ConfigError(
                            f"learner.groups_per_step is {settings.groups_per_step}, but {path} was begun with"
                            f" {stored.groups_per_step}: it cannot change within a run"
                        )
                    write_meta(db, "settings", json.dumps(asdict(settings)))
        except BaseException:
            db.close()
            raise
        return cls(db, path, settings or stored, clock)

    def close(self) -> None:
        """Let go of the file. Not needed for durability."""
        self._db.close()

    @property
    def settings(self) -> LedgerSettings:
        return self._settings

    @property
    def run_id(self) -> str:
        return read_meta(self._db, "run_id")

    # -- rollout workers

    def lease(self, worker_id: str, version: int, max_groups: int) -> list[Lease]:
        """Up to `max_groups` prompt indices for a worker that serves policy `version`; queued ones go before new ones.

        Empty where `LedgerSettings.capacity` allows no more.
        """
        with self._transaction() as db:
            return leases.lease(db, self._settings, self._clock(), worker_id, version, max_groups)

    def redeliver_unacknowledged(self, worker_id: str, held: Collection[str], max_groups: int) -> list[Lease]:
        """Up to `max_groups` leases of the worker that are not among the groups it holds, with a new deadline.

        They were leased to it by a call whose answer was lost. A call that arrives late, with a `held` of long ago, does no
        harm: nothing but the deadline changes.
        """
        with self._transaction() as db:
            return leases.redeliver_unacknowledged(db, self._settings, self._clock(), worker_id, held, max_groups)

    def release_worker(self, worker_id: str, *, drained: bool = False) -> list[str]:
        """Queue the prompts that a dead worker holds, or one that was asked to leave (`drained`); returns the dropped groups.

        A prompt that was with workers as they died, or whose lease lapsed, `max_requeues` times in all is dropped for good.
        """
        reason = leases.WORKER_DRAINED if drained else leases.WORKER_LEFT
        with self._transaction() as db:
            return leases.hand_back(db, self._settings, reason, "worker_id = ?", worker_id)

    def release_all(self) -> list[str]:
        """Queue the prompts of every lease: no worker of an earlier driver is left. Returns the dropped groups."""
        with self._transaction() as db:
            return leases.hand_back(db, self._settings, leases.DRIVER_LEFT, "deadline <= ?", math.inf)

    def expire(self, now: float | None = None) -> list[str]:
        """Queue the prompts of all leases that lapsed by `now` (None: the clock's time); returns the dropped groups."""
        with self._transaction() as db:
            lapsed = self._clock() if now is None else now
            return leases.hand_back(db, self._settings, leases.EXPIRED, "deadline <= ?", lapsed)

    # -- reward workers

    def put(self, payload: bytes) -> PutOutcome:
        """Store one packed ScoredGroup. On return it is on the disk.

        Raises WireError for a payload that does not decode or does not fit its lease, IntegrityError for a group that
        was never leased here.
        """
        return self.put_many([payload])[0]

    def put_many(self, payloads: list[bytes]) -> list[PutOutcome]:
        """`put` each in order, all in one transaction: where one raises, none is stored."""
        with self._transaction() as db:
            return [intake.put(db, self._settings, self._clock(), payload) for payload in payloads]

    def fail(self, group_id: str, reason: str, infrastructure: bool) -> bool:
        """Record that a lease came to nothing, and queue its prompt. Returns False where the group was settled before.

        `reason` is a short name, counted in `status`. Without `infrastructure` the prompt itself is to blame: after
        `max_attempts` such failures it is dropped for good.
        """
        with self._transaction() as db:
            return intake.fail(db, self._settings, group_id, reason, infrastructure)

    # -- learner

    def take(self, step: int) -> BatchManifest | None:
        """The B groups of training step `step`; the same ones at every call.

        Reserved groups come first (see `reserve_after_stale`), then those of the oldest policies, then by order of
        completion. None, and nothing bound, while fewer than B are ready, or while a reserved group is in flight that
        later steps could not train within the staleness bound. Groups beyond that bound are dropped, by `stale_policy`.
        Raises IntegrityError for a step that is trained already, or that is not the next.
        """
        with self._transaction() as db:
            return batches.take(db, self._settings, self._clock(), step)

    def payloads(self, group_ids: list[str]) -> list[bytes]:
        """The packed ScoredGroups, in the order asked for; IntegrityError for one that is not, or no longer, stored."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return batches.read_payloads(db, group_ids)

    def commit(self, policy_version: int, checkpoint: str) -> None:
        """The whole checkpoint `checkpoint` of policy `policy_version` is on the disk: all steps below are trained.

        Call it on resume too, with the checkpoint that is resumed from: a process may have died between writing the
        checkpoint and this call. Raises IntegrityError where the ledger never gave out a batch of these steps.
        """
        with self._transaction() as db:
            batches.commit(db, self._settings, self._clock(), policy_version, checkpoint)

    def rollback(self, policy_version: int) -> RolledBack:
        """Training goes on from the committed policy `policy_version`: later steps are trained again, same batches.

        Raises IntegrityError where steps below are not committed, or where payloads of later ones are removed.
        """
        with self._transaction() as db:
            return batches.rollback(db, policy_version)

    def publish(self, version: int, incarnation: int, digest: str) -> None:
        """Remember the digest of weights sent to the workers; IntegrityError where it was another one before."""
        with self._transaction() as db:
            batches.publish(db, self._clock(), version, incarnation, digest)

    def next_incarnation(self) -> int:
        """The number that a learner which starts now publishes under: one more than any before it."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return batches.next_incarnation(db)

    def status(self) -> LedgerStatus:
        """Where the groups are; cheap enough to ask once a second."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return read_status(db, self._settings, self._clock())

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._db, self._path, "IMMEDIATE")
