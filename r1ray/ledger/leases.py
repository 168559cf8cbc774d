"""Leases of prompt indices to workers. Every function runs inside the caller's transaction."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection

from r1ray.ledger.batches import bound_steps
from r1ray.ledger.records import Lease, LedgerSettings

EXPIRED = "lease_expired"
WORKER_LEFT = "worker_left"
"""The worker died or was killed."""
WORKER_DRAINED = "worker_drained"
DRIVER_LEFT = "driver_left"
SUSPICIOUS = (EXPIRED, WORKER_LEFT)
"""Reasons that the prompt itself may cause, by killing engines or outlasting its lease; most prompts do not."""


def admitted(db: sqlite3.Connection, settings: LedgerSettings) -> int:
    """The number of groups that count against the staleness bound.

    A bound step has B groups, so these need no count.
    """
    (unbound,) = db.execute(
        "SELECT (SELECT COUNT(*) FROM groups WHERE state = 'leased')"
        " + (SELECT COUNT(*) FROM groups WHERE state = 'scored' AND step IS NULL)"
    ).fetchone()
    return int(unbound) + bound_steps(db) * settings.groups_per_step


def cursor(db: sqlite3.Connection) -> int:
    """The first index that was never leased."""
    (last,) = db.execute("SELECT MAX(prompt_index) FROM groups").fetchone()
    return 0 if last is None else int(last) + 1


def lease(
    db: sqlite3.Connection,
    settings: LedgerSettings,
    now: float,
    worker_id: str,
    version: int,
    max_groups: int,
    sharers: int,
) -> list[Lease]:
    """See `Ledger.lease`."""
    room = min(max_groups, math.ceil(settings.capacity(version, admitted(db, settings)) / sharers))
    if room <= 0:
        return []
    queued = db.execute(
        "SELECT prompt_index, attempt, group_id FROM groups WHERE fate = 'queued' ORDER BY prompt_index LIMIT ?",
        (room,),
    ).fetchall()
    db.executemany("UPDATE groups SET fate = 'reissued' WHERE group_id = ?", [(q["group_id"],) for q in queued])
    attempts = [(int(q["prompt_index"]), int(q["attempt"]) + 1) for q in queued]
    first = cursor(db)
    end = first + room - len(attempts)
    attempts += [(index, 1) for index in range(first, end)]
    leases = [
        Lease(group_id=f"{index}-{attempt}", index=index, attempt=attempt, deadline=now + settings.lease_timeout_s)
        for index, attempt in attempts
    ]
    db.executemany(
        "INSERT INTO groups (group_id, prompt_index, attempt, worker_id, version, leased_at, deadline, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'leased')",
        [(x.group_id, x.index, x.attempt, worker_id, version, now, x.deadline) for x in leases],
    )
    return leases


def redeliver_unacknowledged(
    db: sqlite3.Connection, settings: LedgerSettings, now: float, worker_id: str, held: Collection[str], max_groups: int
) -> list[Lease]:
    """See `Ledger.redeliver_unacknowledged`."""
    rows = db.execute(
        "SELECT group_id, prompt_index, attempt FROM groups WHERE state = 'leased' AND worker_id = ?"
        " ORDER BY prompt_index",
        (worker_id,),
    ).fetchall()
    deadline = now + settings.lease_timeout_s
    again = [
        Lease(group_id=row["group_id"], index=row["prompt_index"], attempt=row["attempt"], deadline=deadline)
        for row in rows
        if row["group_id"] not in held
    ][:max_groups]
    db.executemany("UPDATE groups SET deadline = ? WHERE group_id = ?", [(deadline, x.group_id) for x in again])
    return again


def hand_back(db: sqlite3.Connection, settings: LedgerSettings, reason: str, where: str, value: object) -> list[str]:
    """Queue the prompts of all leases that match the condition `where`, which has one placeholder for `value`.

    A prompt that was handed back `max_requeues` times for a reason it may have caused itself is given up.
    """
    most = settings.max_requeues if reason in SUSPICIOUS else math.inf
    rows = db.execute(
        "UPDATE groups SET state = 'dropped', cause = 'returned', reason = ?,"  # noqa: S608  constants
        " fate = CASE WHEN 1 + (SELECT COUNT(*) FROM groups AS o WHERE o.prompt_index = groups.prompt_index"
        "   AND o.cause = 'returned' AND o.reason IN (?, ?)) >= ? THEN 'final' ELSE 'queued' END"
        f" WHERE state = 'leased' AND {where} RETURNING group_id",
        (reason, *SUSPICIOUS, most, value),
    ).fetchall()
    return [str(r["group_id"]) for r in rows]
