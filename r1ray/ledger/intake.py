"""Results of leases: scored groups and failures. Every function runs inside the caller's transaction.

Messages may arrive twice, late, and in any order. A group is *open* while its result is still accepted: it is leased,
or its lease was handed back and its prompt has not been leased again.
"""

from __future__ import annotations

import sqlite3

from r1ray.codec import unpack_scored
from r1ray.errors import IntegrityError, WireError
from r1ray.ledger.records import LedgerSettings, PutOutcome
from r1ray.ledger.summary import failure, summarise, to_columns
from r1ray.types import GroupSummary

NO_SIGNAL = "no_signal"


def put(db: sqlite3.Connection, settings: LedgerSettings, now: float, payload: bytes) -> PutOutcome:
    """See `Ledger.put`."""
    group = unpack_scored(payload)
    summary = summarise(group)
    row = _row(db, summary.group_id)
    if row["prompt_index"] != summary.index:
        raise WireError(
            f"group {summary.group_id}: expected prompt {row['prompt_index']}, for which it was leased,"
            f" got prompt {summary.index}"
        )
    if not _open(row):
        return PutOutcome.LATE if row["cause"] == "returned" else PutOutcome.DUPLICATE
    db.execute("INSERT INTO payloads VALUES (?, ?)", (summary.group_id, payload))
    error = failure(group)
    if error is not None:
        _blame(db, settings, row, error)
        return PutOutcome.FAILED
    _store(db, now, summary)
    if settings.dynamic_sampling and len(set(summary.rewards)) == 1:
        drop(db, summary.group_id, cause="no_signal", reason=NO_SIGNAL, fate="final")
        return PutOutcome.NO_SIGNAL
    return PutOutcome.ACCEPTED


def fail(db: sqlite3.Connection, settings: LedgerSettings, group_id: str, reason: str, infrastructure: bool) -> bool:
    """See `Ledger.fail`."""
    row = _row(db, group_id)
    if not _open(row) or (infrastructure and row["state"] != "leased"):
        return False
    if infrastructure:
        drop(db, group_id, cause="returned", reason=reason, fate="queued")
    else:
        _blame(db, settings, row, reason)
    return True


def drop(db: sqlite3.Connection, group_id: str, *, cause: str, reason: str, fate: str) -> None:
    """Drop a group; `cause`, `reason` and `fate` are the columns of the same names."""
    db.execute(
        "UPDATE groups SET state = 'dropped', cause = ?, reason = ?, fate = ? WHERE group_id = ?",
        (cause, reason, fate, group_id),
    )


def _row(db: sqlite3.Connection, group_id: str) -> sqlite3.Row:
    row = db.execute("SELECT * FROM groups WHERE group_id = ?", (group_id,)).fetchone()
    if row is None:
        raise IntegrityError(f"group {group_id} was never leased from this ledger: its worker belongs to another run")
    assert isinstance(row, sqlite3.Row)
    return row


def _open(row: sqlite3.Row) -> bool:
    return bool(row["state"] == "leased" or (row["cause"] == "returned" and row["fate"] == "queued"))


def _blame(db: sqlite3.Connection, settings: LedgerSettings, row: sqlite3.Row, reason: str) -> None:
    """Drop the group for a fault of its prompt; give the prompt up once that happened `max_attempts` times."""
    (before,) = db.execute(
        "SELECT COUNT(*) FROM groups WHERE prompt_index = ? AND cause = 'failed'", (row["prompt_index"],)
    ).fetchone()
    fate = "queued" if before + 1 < settings.max_attempts else "final"
    drop(db, row["group_id"], cause="failed", reason=reason, fate=fate)


def _store(db: sqlite3.Connection, now: float, summary: GroupSummary) -> None:
    db.execute(
        "UPDATE groups SET state = 'scored', cause = NULL, reason = NULL, fate = NULL, scored_at = :now,"
        " scored_order = (SELECT COALESCE(MAX(scored_order), 0) + 1 FROM groups), prompt_tokens = :prompt_tokens,"
        " completion_tokens = :completion_tokens, rewards = :rewards,"
        " min_version = :min_version, max_version = :max_version WHERE group_id = :group_id",
        {"now": now, "group_id": summary.group_id, **to_columns(summary)},
    )
