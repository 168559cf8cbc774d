"""Batches of training steps: take, commit, roll back. Every function runs inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from r1ray.errors import IntegrityError
from r1ray.ledger.records import LedgerSettings, RolledBack
from r1ray.ledger.storage import read_meta, write_meta
from r1ray.ledger.summary import from_row
from r1ray.types import BatchManifest

STALE = "stale"

_RESERVED = (
    "(SELECT COUNT(*) FROM groups AS o WHERE o.prompt_index = groups.prompt_index AND o.cause = 'stale')"
    " >= :reserve_after_stale"
)
"""Whether earlier groups of the row's prompt were dropped as stale so often that this one must not be."""


def bound_steps(db: sqlite3.Connection) -> int:
    """The number of steps that have a batch; these are the steps 0, 1, ... without a gap."""
    (steps,) = db.execute("SELECT COALESCE(MAX(step) + 1, 0) FROM steps").fetchone()
    return int(steps)


def trained_steps(db: sqlite3.Connection) -> int:
    """The number of committed steps; `commit` and `rollback` keep them a prefix of the bound steps."""
    (first,) = db.execute("SELECT MIN(step) FROM groups WHERE state IN ('scored', 'taken')").fetchone()
    return bound_steps(db) if first is None else int(first)


def take(db: sqlite3.Connection, settings: LedgerSettings, now: float, step: int) -> BatchManifest | None:
    """See `Ledger.take`."""
    bound = bound_steps(db)
    if step > bound or step < 0:
        raise IntegrityError(
            f"take: expected step {bound} or an earlier one, got {step}: the learner belongs to another run"
        )
    if step < bound:
        return _retake(db, step)
    _drop_stale(db, settings, step)
    ready = db.execute(
        f"SELECT group_id, min_version, {_RESERVED} AS reserved FROM groups"  # noqa: S608  a constant
        " WHERE state = 'scored' AND step IS NULL ORDER BY reserved DESC, min_version, scored_order LIMIT :size",
        {"reserve_after_stale": settings.reserve_after_stale, "size": settings.groups_per_step},
    ).fetchall()
    if len(ready) < settings.groups_per_step or _must_wait(db, settings, step, ready):
        return None
    db.execute("INSERT INTO steps VALUES (?, ?, ?)", (step, settings.max_staleness, now))
    db.executemany(
        "UPDATE groups SET state = 'taken', step = ?, slot = ? WHERE group_id = ?",
        [(step, slot, row["group_id"]) for slot, row in enumerate(ready)],
    )
    return _manifest(db, step)


def _retake(db: sqlite3.Connection, step: int) -> BatchManifest:
    if step < trained_steps(db):
        raise IntegrityError(f"step {step} is committed: roll back to policy {step} before you train it again")
    db.execute("UPDATE groups SET state = 'taken' WHERE step = ? AND state = 'scored'", (step,))
    return _manifest(db, step)


def awaited(db: sqlite3.Connection, settings: LedgerSettings, step: int) -> int:
    """How many reserved groups in flight must be in the batch of `step`, because later steps cannot take them all."""
    return max((groups for _, groups in _overdue(db, settings, step)), default=0)


def _overdue(db: sqlite3.Connection, settings: LedgerSettings, step: int) -> Iterator[tuple[int, int]]:
    """(version u, how many reserved groups in flight from policies up to u are more than the steps after `step` can
    take).

    The steps `step + 1` to `u + max_staleness` have places for `(u + max_staleness - step) * B` such groups. Groups of
    policies before `step - max_staleness`, which needs a lowered `max_staleness`, are too old for `step` already.
    """
    oldest = step - settings.max_staleness
    rows = db.execute(
        f"SELECT version, COUNT(*) FROM groups WHERE state = 'leased' AND version >= :oldest AND {_RESERVED}"  # noqa: S608
        " GROUP BY version ORDER BY version",
        {"oldest": oldest, "reserve_after_stale": settings.reserve_after_stale},
    )
    in_flight = 0
    for version, groups in rows.fetchall():
        in_flight += groups
        if (more := in_flight - (version - oldest) * settings.groups_per_step) > 0:
            yield version, more


def _must_wait(db: sqlite3.Connection, settings: LedgerSettings, step: int, batch: Sequence[sqlite3.Row]) -> bool:
    """Whether `batch` would leave a reserved group to become too old that could take the place of another in it.

    The wait ends when these groups are scored, fail, or lose their lease, so it is bounded by `lease_timeout_s`.
    """
    return any(
        any(not g["reserved"] or g["min_version"] > version for g in batch)
        for version, _ in _overdue(db, settings, step)
    )


def _drop_stale(db: sqlite3.Connection, settings: LedgerSettings, step: int) -> None:
    fate = "queued" if settings.stale_policy == "requeue" else "final"
    db.execute(
        "UPDATE groups SET state = 'dropped', cause = 'stale', reason = ?, fate = ?"
        " WHERE state = 'scored' AND step IS NULL AND min_version < ?",
        (STALE, fate, step - settings.max_staleness),
    )


def _manifest(db: sqlite3.Connection, step: int) -> BatchManifest:
    rows = db.execute("SELECT * FROM groups WHERE step = ? ORDER BY slot", (step,)).fetchall()
    return BatchManifest(step=step, groups=tuple(from_row(row) for row in rows))


def read_payloads(db: sqlite3.Connection, group_ids: list[str]) -> list[bytes]:
    """See `Ledger.payloads`."""
    payloads = []
    for group_id in group_ids:
        row = db.execute("SELECT payload FROM payloads WHERE group_id = ?", (group_id,)).fetchone()
        if row is None:
            raise IntegrityError(
                f"group {group_id} has no payload: it is not scored, or its payload was pruned "
                "(queue.keep_payload_steps)"
            )
        payloads.append(bytes(row["payload"]))
    return payloads


def commit(db: sqlite3.Connection, settings: LedgerSettings, now: float, policy_version: int, checkpoint: str) -> None:
    """See `Ledger.commit`."""
    bound = bound_steps(db)
    if policy_version > bound:
        raise IntegrityError(
            f"checkpoint {checkpoint} has policy {policy_version}, but the ledger has batches of {bound} steps only:"
            " the checkpoint belongs to another run, or the ledger is an older copy"
        )
    db.execute("UPDATE groups SET state = 'trained' WHERE state IN ('scored', 'taken') AND step < ?", (policy_version,))
    (previous,) = db.execute(
        "SELECT COALESCE(MAX(policy_version), 0) FROM commits WHERE policy_version < ?", (policy_version,)
    ).fetchone()
    db.execute("INSERT OR REPLACE INTO commits VALUES (?, ?, ?)", (policy_version, checkpoint, now))
    if settings.keep_payload_steps is not None:
        # A learner may fall back to the previous checkpoint, which is still on the disk, and needs these payloads then.
        _prune(db, min(policy_version - settings.keep_payload_steps, previous))


def _prune(db: sqlite3.Connection, before: int) -> None:
    """Delete the payloads of steps below `before`, and of dropped groups leased under policies below it."""
    done = int(read_meta(db, "pruned_before"))
    if before <= done:
        return
    db.execute(
        "DELETE FROM payloads WHERE group_id IN (SELECT group_id FROM groups WHERE step >= ? AND step < ?"
        " UNION ALL SELECT group_id FROM groups WHERE state = 'dropped' AND version < ?)",
        (done, before, before),
    )
    write_meta(db, "pruned_before", str(before))


def rollback(db: sqlite3.Connection, policy_version: int) -> RolledBack:
    """See `Ledger.rollback`."""
    trained, pruned = trained_steps(db), int(read_meta(db, "pruned_before"))
    if policy_version > trained:
        raise IntegrityError(
            f"cannot roll back to policy {policy_version}: only {trained} steps are committed;"
            " commit its checkpoint first"
        )
    if policy_version < pruned:
        raise IntegrityError(
            f"cannot roll back to policy {policy_version}: the payloads of steps before {pruned} are pruned,"
            " or lost with an earlier ledger;"
            " use a newer checkpoint, and raise queue.keep_payload_steps for the next run"
        )
    counts = db.execute(
        "SELECT step, COUNT(*) AS groups, SUM(state = 'trained') AS trained FROM groups WHERE step >= ? GROUP BY step",
        (policy_version,),
    ).fetchall()
    db.execute("UPDATE groups SET state = 'scored' WHERE step >= ?", (policy_version,))
    db.execute("DELETE FROM commits WHERE policy_version > ?", (policy_version,))
    return RolledBack(
        policy_version=policy_version,
        steps=tuple(int(c["step"]) for c in counts),
        groups=sum(int(c["groups"]) for c in counts),
        trained_groups=sum(int(c["trained"]) for c in counts),
    )


def publish(db: sqlite3.Connection, now: float, version: int, incarnation: int, digest: str) -> None:
    """See `Ledger.publish`."""
    db.execute(
        "INSERT INTO published VALUES (?, ?, ?, ?) ON CONFLICT (version, incarnation) DO NOTHING",
        (version, incarnation, digest, now),
    )
    (known,) = db.execute(
        "SELECT digest FROM published WHERE version = ? AND incarnation = ?", (version, incarnation)
    ).fetchone()
    if known != digest:
        raise IntegrityError(
            f"policy {version} of incarnation {incarnation}: expected the published digest {known}, got {digest}:"
            " two learners are alive, or weights changed after they were published"
        )


def next_incarnation(db: sqlite3.Connection) -> int:
    """See `Ledger.next_incarnation`."""
    (newest,) = db.execute("SELECT max(incarnation) FROM published").fetchone()
    return 0 if newest is None else int(newest) + 1
