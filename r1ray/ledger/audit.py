"""Audit of a ledger: every prompt is in exactly one state, and no group was trained twice or too late.

The audit relies on no constraint of the tables. It reads plain rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1ray.codec import unpack_scored
from r1ray.errors import WireError
from r1ray.ledger.lengths import LengthQuartile, length_quartiles
from r1ray.ledger.records import LedgerSettings
from r1ray.ledger.schema import WELL_FORMED
from r1ray.ledger.storage import check_file, connect_reader, read_meta, read_settings, transaction
from r1ray.ledger.summary import from_row, summarise

LEDGER_NAME = "ledger.sqlite"
PAGE = 64
"""Payloads decoded in one transaction."""

IDS_SHOWN = 20
"""At most so many ids are named in a violation; its message has their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One line of the table of counts."""

    what: str  # leased, scored, taken, trained, dropped, given up, re-issued, queued
    detail: str  # the step or the reason; empty for the total
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken invariant."""

    # damaged | malformed | index_missing | two_states | trained_twice | too_stale | too_new | unaccounted | payload |
    # batch
    kind: str
    ids: tuple[str, ...]  # group ids, or prompt indices, or steps, as the message says; at most IDS_SHOWN
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """The result of an audit."""

    run_id: str
    checkpoints: tuple[int, ...]  # policy versions of complete checkpoints; the newest is enough
    torn: tuple[str, ...]  # newer checkpoints that are incomplete, with their defects
    live_policy_version: int | None
    rows: tuple[AuditRow, ...]
    lengths: tuple[LengthQuartile, ...]
    violations: tuple[Violation, ...]
    copied_at: float | None = None  # of the copy that was read, seconds since the epoch; None: the ledger itself
    read_from: str | None = None  # which copy was read, and its age

    @property
    def ok(self) -> bool:
        """Whether the audit found no violation."""
        return not self.violations

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers."""
        return {"ok": self.ok, **asdict(self)}


FindCheckpoints = Callable[[str], tuple[Sequence[int], Sequence[str]]]
"""run id -> policy versions of complete checkpoints (the newest is enough), and the defects of newer ones."""


def audit(
    path: Path, checkpoints: Sequence[int] | FindCheckpoints, live_policy_version: int | None = None
) -> AuditReport:
    """Check the ledger at `path` (the file, or its run folder). Read-only; the run may be live or dead.

    `checkpoints`: policy versions of the run's complete checkpoints, or a function that finds them. The function is
    called after the rows are read: a live run may commit meanwhile, but it never deletes its newest checkpoint.
    `live_policy_version`: policy of the learner, if one is running.
    Raises IntegrityError if the file is not a ledger or cannot be read at all.
    """
    file = path / LEDGER_NAME if path.is_dir() else path
    check_file(file, None)
    with closing(connect_reader(file)) as db:
        with transaction(db, file, "DEFERRED"):
            settings, run_id = read_settings(db), read_meta(db, "run_id")
            rows, lengths = tuple(_count(db)), length_quartiles(db)
            violations = [*_damaged(db), *(v for rule in _RULES for v in rule.check(db, settings))]
            trained = [row[0] for row in db.execute("SELECT DISTINCT step FROM groups WHERE state = 'trained'")]
        known, torn = checkpoints(run_id) if callable(checkpoints) else (checkpoints, ())
        violations += _unaccounted(trained, max((*known, live_policy_version or 0)), torn)
        violations += _payloads(db, file)
    return AuditReport(
        run_id=run_id,
        checkpoints=tuple(sorted(known)),
        torn=tuple(torn),
        live_policy_version=live_policy_version,
        rows=rows,
        lengths=lengths,
        violations=tuple(violations),
    )


def _count(db: sqlite3.Connection) -> Iterator[AuditRow]:
    totals = dict(db.execute("SELECT state, COUNT(*) FROM groups GROUP BY state").fetchall())
    for state in ("leased", "scored", "taken", "trained", "dropped"):
        yield AuditRow(what=state, detail="", groups=totals.get(state, 0))
    for fate, what in (("reissued", "re-issued"), ("queued", "queued")):
        (n,) = db.execute("SELECT COUNT(*) FROM groups WHERE fate = ?", (fate,)).fetchone()
        yield AuditRow(what=what, detail="", groups=n)
    for reason, n in db.execute("SELECT reason, COUNT(*) FROM groups WHERE state = 'dropped' GROUP BY reason"):
        yield AuditRow(what="dropped", detail=str(reason), groups=n)
    for reason, n in db.execute("SELECT reason, COUNT(*) FROM groups WHERE fate = 'final' GROUP BY reason"):
        yield AuditRow(what="given up", detail=str(reason), groups=n)
    for state in ("taken", "trained"):
        for step, n in db.execute("SELECT step, COUNT(*) FROM groups WHERE state = ? GROUP BY step", (state,)):
            yield AuditRow(what=state, detail=f"step {step}", groups=n)


def _violation(kind: str, ids: Sequence[object], message: str) -> Violation:
    return Violation(kind=kind, ids=tuple(str(i) for i in ids[:IDS_SHOWN]), message=f"{message} ({len(ids)} in all)")


def _damaged(db: sqlite3.Connection) -> Iterator[Violation]:
    found = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({IDS_SHOWN})")]
    found += [
        f"{row[0]} row {row[1]} points to a missing row of {row[2]}" for row in db.execute("PRAGMA foreign_key_check")
    ]
    if found != ["ok"]:
        problems = [f for f in found if f != "ok"]
        yield _violation("damaged", problems, "SQLite reports that the file is inconsistent")


@dataclass(frozen=True, slots=True)
class _Rule:
    """An invariant of the tables, with a query for what breaks it: the first column of its rows.

    `:groups_per_step` in the query, and `{groups_per_step}` in the message, stand for that setting.
    """

    kind: str
    message: str
    query: str

    def check(self, db: sqlite3.Connection, settings: LedgerSettings) -> Iterator[Violation]:
        """One violation that names all that break the rule; nothing if the query has no rows."""
        values = {"groups_per_step": settings.groups_per_step}
        if ids := [row[0] for row in db.execute(self.query, values)]:
            yield _violation(self.kind, ids, self.message.format_map(values))


_RULES = (
    _Rule(
        "malformed",
        "groups have columns that their state excludes, or lack columns that it requires",
        f"SELECT group_id FROM groups WHERE NOT ({WELL_FORMED})",  # noqa: S608  a constant
    ),
    # Every index below the cursor needs a current group; the cursor itself ends the last gap.
    _Rule(
        "index_missing",
        "prompt indices, or ranges of them, below the cursor are in no state",
        "WITH present AS (SELECT prompt_index AS i FROM groups WHERE fate IS NOT 'reissued'"
        "   UNION SELECT MAX(prompt_index) + 1 FROM groups),"
        " pairs AS (SELECT LAG(i, 1, -1) OVER (ORDER BY i) + 1 AS first, i - 1 AS last FROM present)"
        " SELECT CASE WHEN first = last THEN first ELSE first || '..' || last END FROM pairs WHERE first <= last",
    ),
    _Rule(
        "two_states",
        "prompt indices are in more than one state",
        "SELECT prompt_index FROM groups WHERE fate IS NOT 'reissued' GROUP BY prompt_index HAVING COUNT(*) > 1",
    ),
    _Rule(
        "trained_twice",
        "prompt indices were trained by more than one group",
        "SELECT prompt_index FROM groups WHERE state = 'trained' GROUP BY prompt_index HAVING COUNT(*) > 1",
    ),
    _Rule(
        "too_stale",
        "groups were trained beyond the staleness bound of their step",
        "SELECT group_id FROM groups JOIN steps USING (step)"
        " WHERE state IN ('taken', 'trained') AND step - min_version > max_staleness",
    ),
    # Versions have no incarnation. `too_stale` is valid for all timelines because of this: docs/fault-tolerance.md.
    _Rule(
        "too_new",
        "groups were sampled by policies newer than their step",
        "SELECT group_id FROM groups WHERE step IS NOT NULL AND max_version > step",
    ),
    _Rule(
        "batch",
        "steps do not have exactly {groups_per_step} groups, one in each slot",
        "SELECT step FROM (SELECT step, slot FROM groups WHERE step IS NOT NULL UNION ALL SELECT step, NULL FROM steps)"
        " GROUP BY step HAVING COUNT(slot) <> :groups_per_step OR COUNT(DISTINCT slot) <> :groups_per_step"
        " OR MAX(slot) <> :groups_per_step - 1 ORDER BY step",
    ),
    _Rule(
        "batch",
        "steps were bound out of order, or a step before them is missing",
        "SELECT step FROM (SELECT step, ROW_NUMBER() OVER (ORDER BY step) - 1 AS place FROM steps) WHERE step <> place"
        " UNION SELECT step FROM groups WHERE step IS NOT NULL AND step NOT IN (SELECT step FROM steps)",
    ),
    _Rule(
        "batch",
        "steps are partly trained, or were trained after an untrained step",
        "SELECT DISTINCT step FROM groups WHERE state = 'trained'"
        " AND step >= (SELECT MIN(step) FROM groups WHERE state IN ('scored', 'taken') AND step IS NOT NULL)",
    ),
)


def _unaccounted(trained: Sequence[int], newest_policy: int, torn: Sequence[str]) -> Iterator[Violation]:
    if steps := sorted(step for step in trained if step >= newest_policy):
        what = (
            f"steps count as trained, but no complete checkpoint or live learner is newer than policy {newest_policy}"
        )
        yield _violation("unaccounted", steps, "; ".join((what, *torn)))


def _payloads(db: sqlite3.Connection, file: Path) -> Iterator[Violation]:
    """Decode every payload that was or will be trained on.

    One transaction per page instead of a single long one, so that the log of a live run can be truncated meanwhile;
    payloads never change.
    """
    query = (
        "SELECT g.rowid AS place, g.*, p.payload, (SELECT value FROM meta WHERE key = 'pruned_before') AS pruned_before"
        " FROM groups AS g LEFT JOIN payloads AS p USING (group_id)"
        # The plus keeps SQLite from sorting all groups of these states for each page.
        " WHERE g.rowid > ? AND +state IN ('scored', 'taken', 'trained') ORDER BY g.rowid LIMIT ?"
    )
    after = 0
    while True:
        with transaction(db, file, "DEFERRED"):
            rows = db.execute(query, (after, PAGE)).fetchall()
        if not rows:
            return
        after = rows[-1]["place"]
        for row in rows:
            problem = _payload_problem(row)
            if problem is not None:
                yield Violation(kind="payload", ids=(row["group_id"],), message=f"group {row['group_id']}: {problem}")


def _payload_problem(row: sqlite3.Row) -> str | None:
    if row["payload"] is None:
        removed = row["state"] == "trained" and row["step"] < int(row["pruned_before"])
        return None if removed else "its payload is missing"
    try:
        summary = summarise(unpack_scored(row["payload"]))
        recorded = from_row(row)
    except (WireError, TypeError, ValueError) as e:
        return f"its payload or summary cannot be decoded: {e}"
    return None if summary == recorded else f"its summary {recorded} contradicts its payload {summary}"
