"""The ledger of a run: one owner, one transaction per call, no state in memory that is not on the disk."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from r1ray.errors import ConfigError, IntegrityError
from r1ray.ledger import batches, intake, leases
from r1ray.ledger.adoption import adopt
from r1ray.ledger.reader import read_status
from r1ray.ledger.records import Lease, LedgerSettings, LedgerStatus, PutOutcome, RolledBack
from r1ray.ledger.storage import (
    check_file,
    connect_writer,
    create_file,
    put_meta,
    read_meta,
    read_settings,
    savepoint,
    transaction,
    write_meta,
)
from r1ray.types import BatchManifest

Clock = Callable[[], float]


class Ledger:
    """Leases prompt indices, stores scored groups, hands out batches, and records which steps were trained.

    A worked example with B = 2 groups a step and staleness bound s = 0:

        lease("w0", version=0, max_groups=8)  -> 0-1, 1-1      (0 + 0 + 1) * 2 = 2 may be admitted for policy 0
        put(1-1), then put(0-1)                                both scored; again put(1-1): "duplicate"
        take(0)                               -> 1-1, 0-1      in order of completion; bound to step 0 from now on
        lease("w0", version=0, max_groups=8)  -> nothing       a group of policy 0 would be too old for step 1
        lease("w0", version=1, max_groups=8)  -> 2-1, 3-1
        release_worker("w0")                  -> 2-1, 3-1      dropped; prompts 2 and 3 are queued
        lease("w1", version=1, max_groups=1)  -> 2-2           queued prompts first, under a new attempt
        commit(1, "step_000001")                               1-1 and 0-1 are trained
        rollback(0)                                            the checkpoint is discarded: they are scored again
        take(0)                               -> 1-1, 0-1      the same batch

    Every call may be repeated after a failure or a crash. Call from one thread at a time. Any call may raise DiskFull,
    or another InfrastructureError or IntegrityError that names the file; such a call has changed nothing.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, settings: LedgerSettings, clock: Clock) -> None:
        """Use `create` or `open`."""
        self._db = db
        self._path = path
        self._settings = settings
        self._clock = clock

    @classmethod
    def create(cls, path: Path, settings: LedgerSettings, *, run_id: str, clock: Clock = time.time) -> Ledger:
        """Create a ledger at `path`. Raises IntegrityError if there is one. `clock` gives seconds since the epoch."""
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
        """Open the ledger at `path`, under new `settings` if given.

        Raises IntegrityError, and changes nothing on the disk, if the file is not a ledger, has another schema, or does
        not belong to run `run_id` (None: any). Raises ConfigError if `groups_per_step` differs from that of the run.
        """
        check_file(path, run_id)
        db = connect_writer(path)
        try:
            with transaction(db, path, "IMMEDIATE"):
                stored = read_settings(db)
                if settings is not None and settings != stored:
                    if settings.groups_per_step != stored.groups_per_step:
                        raise ConfigError(
                            f"learner.groups_per_step: expected {stored.groups_per_step}, with which {path} was begun,"
                            f" got {settings.groups_per_step}: it cannot change within a run"
                        )
                    write_meta(db, "settings", json.dumps(asdict(settings)))
        except BaseException:
            db.close()
            raise
        return cls(db, path, settings or stored, clock)

    def close(self) -> None:
        """Close the file. Not needed for durability."""
        self._db.close()

    @property
    def settings(self) -> LedgerSettings:
        """The rules in force."""
        return self._settings

    @property
    def run_id(self) -> str:
        """The run that the ledger belongs to."""
        return read_meta(self._db, "run_id")

    # -- rollout workers

    def lease(self, worker_id: str, version: int, max_groups: int, *, sharers: int = 1) -> list[Lease]:
        """Lease up to `max_groups` prompt indices to a worker that serves policy `version`, queued prompts first.

        `sharers`: workers, this one included, that get equal parts of what `LedgerSettings.capacity` allows. Returns
        an empty list if it allows no more.
        """
        with self._transaction() as db:
            return leases.lease(db, self._settings, self._clock(), worker_id, version, max_groups, sharers)

    def redeliver_unacknowledged(self, worker_id: str, held: Collection[str], max_groups: int) -> list[Lease]:
        """Up to `max_groups` leases of the worker that are not among the groups it holds, with a new deadline.

        They were leased to it by a call whose answer was lost. A late call with an outdated `held` is harmless: only
        deadlines change.
        """
        with self._transaction() as db:
            return leases.redeliver_unacknowledged(db, self._settings, self._clock(), worker_id, held, max_groups)

    def release_worker(self, worker_id: str, *, drained: bool = False) -> list[str]:
        """Queue the prompts of a worker that died, or that was scaled down (`drained`). Returns the dropped groups.

        A prompt whose worker died or whose lease expired `max_requeues` times in all is given up.
        """
        reason = leases.WORKER_DRAINED if drained else leases.WORKER_LEFT
        with self._transaction() as db:
            return leases.hand_back(db, self._settings, reason, "worker_id = ?", worker_id)

    def release_all(self) -> list[str]:
        """Queue the prompts of every lease, because no worker of an earlier driver is left.

        Returns the dropped groups.
        """
        with self._transaction() as db:
            return leases.hand_back(db, self._settings, leases.DRIVER_LEFT, "deadline <= ?", math.inf)

    def expire(self, now: float | None = None) -> list[str]:
        """Queue the prompts of all leases that expired by `now` (None: the clock's time).

        Returns the dropped groups.
        """
        with self._transaction() as db:
            lapsed = self._clock() if now is None else now
            return leases.hand_back(db, self._settings, leases.EXPIRED, "deadline <= ?", lapsed)

    # -- reward workers

    def put(self, payload: bytes) -> PutOutcome:
        """Store one packed ScoredGroup. It is on the disk when the call returns.

        Raises WireError for a payload that cannot be decoded or does not match its lease, and IntegrityError for a
        group that was never leased from this ledger.
        """
        return self.put_many([payload])[0]

    def put_many(self, payloads: list[bytes]) -> list[PutOutcome]:
        """`put` each in order, in one transaction: if one raises, none is stored."""
        with self._transaction() as db:
            return [intake.put(db, self._settings, self._clock(), payload) for payload in payloads]

    def put_calls(self, calls: Sequence[tuple[list[bytes], bool]]) -> list[list[PutOutcome] | IntegrityError]:
        """`put` the payloads of several calls, each (payloads, atomic), in one transaction with one wait for the disk.

        A call whose payload is refused gets the error of `put` and changes no other call. If it is atomic, none of its
        payloads is stored; otherwise those before the refused one are.
        """
        with self._transaction() as db:
            return [self._put_call(db, payloads, atomic) for payloads, atomic in calls]

    def _put_call(
        self, db: sqlite3.Connection, payloads: list[bytes], atomic: bool
    ) -> list[PutOutcome] | IntegrityError:
        outcomes: list[PutOutcome] = []
        try:
            for part in [payloads] if atomic else [[payload] for payload in payloads]:
                with savepoint(db, self._path):
                    outcomes += [intake.put(db, self._settings, self._clock(), payload) for payload in part]
        except IntegrityError as e:
            return e
        return outcomes

    def fail(self, group_id: str, reason: str, infrastructure: bool) -> bool:
        """Record that a leased group failed, and queue its prompt. Returns False if the group was settled before.

        `reason` is a short name, counted in `status`. Without `infrastructure` the failure counts against the prompt,
        which is given up after `max_attempts` of them.
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
        """The packed ScoredGroups, in the order of `group_ids`. Raises IntegrityError if one is not stored."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return batches.read_payloads(db, group_ids)

    def commit(self, policy_version: int, checkpoint: str, unknown: Sequence[BatchManifest] = ()) -> None:
        """Mark all steps below `policy_version` as trained: the complete checkpoint `checkpoint` is on the disk.

        Call it on resume too, with the checkpoint that the run resumes from, because a process may have died between
        writing the checkpoint and this call. Raises IntegrityError if the ledger has no batch for one of these steps.
        `unknown`: the batches of these steps that the ledger has not, because it is a copy from before them.
        """
        with self._transaction() as db:
            adopt(db, self._settings, self._clock(), unknown)
            batches.commit(db, self._settings, self._clock(), policy_version, checkpoint)

    def rollback(self, policy_version: int) -> RolledBack:
        """Continue training from the committed policy `policy_version`: later steps are trained again on the same
        batches.

        Raises IntegrityError if an earlier step is not committed, or if payloads of later steps are pruned.
        """
        with self._transaction() as db:
            return batches.rollback(db, policy_version)

    def publish(self, version: int, incarnation: int, digest: str) -> None:
        """Record the digest of weights sent to the workers. Raises IntegrityError if it differs from a recorded one."""
        with self._transaction() as db:
            batches.publish(db, self._clock(), version, incarnation, digest)

    def next_incarnation(self) -> int:
        """The incarnation that a newly started learner publishes under: one above all earlier ones."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return batches.next_incarnation(db)

    def stamp_copy(self) -> None:
        """Record that a copy of the ledger is made now; the copy carries this time."""
        with self._transaction() as db:
            put_meta(db, "copied_at", repr(self._clock()))

    def status(self) -> LedgerStatus:
        """Where the groups are. Cheap enough for a call every second."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return read_status(db, self._settings, self._clock())

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._db, self._path, "IMMEDIATE")
