"""Batches that a checkpoint was trained on and that this ledger, an older copy, does not know.

Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from r1ray.errors import IntegrityError
from r1ray.ledger.batches import bound_steps
from r1ray.ledger.leases import cursor
from r1ray.ledger.records import LedgerSettings
from r1ray.ledger.storage import read_meta, write_meta
from r1ray.ledger.summary import to_columns
from r1ray.types import BatchManifest, GroupSummary

LEDGER_LOST = "ledger_lost"
"""Reason of a group whose result was in a ledger that is gone; its prompt is leased again."""

_UNBOUND = (
    "the record of step {step} has group {group_id}, which the ledger's copy has as {state}: they are of two runs"
)


def adopt(db: sqlite3.Connection, settings: LedgerSettings, now: float, manifests: Sequence[BatchManifest]) -> None:
    """Bind the groups of `manifests`, the steps after the last bound one, as they were bound in the lost ledger.

    Prompts between them that the copy does not know are queued: they were leased, and their outcome is lost.
    The payloads are lost too, so training cannot go back before the last of these steps.
    Raises IntegrityError if a step is missing, or if the copy contradicts a manifest.
    """
    known = cursor(db)
    for manifest in manifests:
        step = bound_steps(db)
        if manifest.step < step:  # this call is repeated
            continue
        if manifest.step != step or len(manifest.groups) != settings.groups_per_step:
            raise IntegrityError(
                f"records of batches: expected {settings.groups_per_step} groups of step {step}, got"
                f" {len(manifest.groups)} of step {manifest.step}: restore `batches/` of the run folder from a backup"
            )
        db.execute("INSERT INTO steps VALUES (?, ?, ?)", (step, settings.max_staleness, now))
        for slot, summary in enumerate(manifest.groups):
            _bind(db, now, summary, step, slot)
    present = {row[0] for row in db.execute("SELECT prompt_index FROM groups WHERE prompt_index >= ?", (known,))}
    db.executemany(
        "INSERT INTO groups (group_id, prompt_index, attempt, worker_id, version, leased_at, deadline, state, cause,"
        " reason, fate) VALUES (?, ?, 1, '', 0, ?, ?, 'dropped', 'returned', ?, 'queued')",
        [(f"{i}-1", i, now, now, LEDGER_LOST) for i in range(known, cursor(db)) if i not in present],
    )
    if manifests:
        write_meta(db, "pruned_before", str(max(bound_steps(db), int(read_meta(db, "pruned_before")))))


def _bind(db: sqlite3.Connection, now: float, summary: GroupSummary, step: int, slot: int) -> None:
    attempt = int(summary.group_id.rpartition("-")[2])
    current = db.execute(
        "SELECT * FROM groups WHERE prompt_index = ? AND fate IS NOT 'reissued'", (summary.index,)
    ).fetchone()
    if current is not None:
        _refuse_settled(current, summary, attempt, step)
    if current is None or current["attempt"] < attempt:
        if current is not None:
            _supersede(db, current)
        db.execute(
            "INSERT INTO groups (group_id, prompt_index, attempt, worker_id, version, leased_at, deadline, state)"
            " VALUES (?, ?, ?, '', ?, ?, ?, 'leased')",
            (summary.group_id, summary.index, attempt, summary.min_policy_version, now, now),
        )
    db.execute(
        "UPDATE groups SET state = 'taken', cause = NULL, reason = NULL, fate = NULL, step = :step, slot = :slot,"
        " scored_at = COALESCE(scored_at, :now), scored_order = COALESCE(scored_order,"
        "   (SELECT COALESCE(MAX(scored_order), 0) + 1 FROM groups)), prompt_tokens = :prompt_tokens,"
        " completion_tokens = :completion_tokens, rewards = :rewards,"
        " min_version = :min_version, max_version = :max_version WHERE group_id = :group_id",
        {"step": step, "slot": slot, "now": now, "group_id": summary.group_id, **to_columns(summary)},
    )


def _refuse_settled(current: sqlite3.Row, summary: GroupSummary, attempt: int, step: int) -> None:
    """Raise IntegrityError if the lost ledger cannot have continued from `current` to `summary`."""
    waiting = current["fate"] == "queued"
    if current["attempt"] == attempt:  # the same group: in flight, ready, or returned and accepted late
        follows = current["state"] == "leased" or (waiting and current["cause"] == "returned")
    else:
        follows = current["attempt"] < attempt and (current["state"] == "leased" or waiting)
    ready = current["state"] == "scored" and current["step"] is None and current["attempt"] <= attempt
    if not follows and not ready:
        raise IntegrityError(_UNBOUND.format(step=step, group_id=summary.group_id, state=current["state"]))


def _supersede(db: sqlite3.Connection, current: sqlite3.Row) -> None:
    """The prompt of `current` was leased again in the lost ledger."""
    if current["state"] == "dropped":
        db.execute("UPDATE groups SET fate = 'reissued' WHERE group_id = ?", (current["group_id"],))
        return
    db.execute(
        "UPDATE groups SET state = 'dropped', cause = 'returned', reason = ?, fate = 'reissued' WHERE group_id = ?",
        (LEDGER_LOST, current["group_id"]),
    )
