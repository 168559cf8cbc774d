"""Read-only access to a ledger, while its run is live or after it ended."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from r1ray.codec import unpack_scored
from r1ray.ledger.batches import awaited, bound_steps, read_payloads, trained_steps
from r1ray.ledger.leases import cursor
from r1ray.ledger.records import GroupRecord, GroupState, LedgerSettings, LedgerStatus, StepTimes
from r1ray.ledger.storage import check_file, connect_reader, read_meta, read_settings, transaction
from r1ray.ledger.summary import from_row

PAGE = 256
"""Groups that `groups` reads in one transaction; an open transaction keeps SQLite from truncating the log."""

_NUMBERS = """
SELECT
  (SELECT COUNT(*) FROM groups WHERE state = 'leased') AS leased,
  (SELECT COUNT(*) FROM groups WHERE state = 'scored') AS scored,
  (SELECT COUNT(*) FROM groups WHERE state = 'scored' AND step IS NULL) AS ready,
  (SELECT COUNT(*) FROM groups WHERE state = 'taken') AS taken,
  (SELECT MIN(prompt_index) FROM groups WHERE state IN ('leased', 'scored', 'taken')) AS first_under_way,
  (SELECT MIN(prompt_index) FROM groups WHERE fate = 'queued') AS first_queued
"""


def read_status(db: sqlite3.Connection, settings: LedgerSettings, now: float) -> LedgerStatus:
    """`Ledger.status` inside the caller's transaction. Trained groups need no count: they are B per step."""
    numbers = db.execute(_NUMBERS).fetchone()
    drops = db.execute(
        "SELECT reason, fate, cause, COUNT(*) AS n FROM groups WHERE state = 'dropped'"
        " GROUP BY reason, fate, cause ORDER BY reason"
    ).fetchall()
    oldest = db.execute(
        "SELECT group_id, worker_id, leased_at FROM groups WHERE state = 'leased' ORDER BY leased_at LIMIT 1"
    ).fetchone()
    by_reason: dict[str, int] = {}
    rejected: dict[str, int] = {}
    stale = 0
    by_fate = {"queued": 0, "reissued": 0, "final": 0}
    for row in drops:
        by_reason[row["reason"]] = by_reason.get(row["reason"], 0) + row["n"]
        if row["cause"] in ("failed", "no_signal"):
            rejected[row["reason"]] = rejected.get(row["reason"], 0) + row["n"]
        stale += row["n"] if row["cause"] == "stale" else 0
        by_fate[row["fate"]] += row["n"]
    end = cursor(db)
    unsettled = [x for x in (numbers["first_under_way"], numbers["first_queued"]) if x is not None]
    steps_bound, steps_trained = bound_steps(db), trained_steps(db)
    return LedgerStatus(
        settings=settings,
        cursor=end,
        queued=by_fate["queued"],
        leased=numbers["leased"],
        scored=numbers["scored"],
        ready=numbers["ready"],
        taken=numbers["taken"],
        trained=steps_trained * settings.groups_per_step,
        dropped=sum(by_fate.values()),
        dropped_by_reason=by_reason,
        rejected_by_reason=rejected,
        accepted=numbers["scored"] + numbers["taken"] + steps_trained * settings.groups_per_step + stale,
        dropped_prompts=by_fate["final"],
        reissued=by_fate["reissued"],
        bound_steps=steps_bound,
        trained_steps=steps_trained,
        trained_frontier=min(unsettled, default=end),
        awaited=awaited(db, settings, steps_bound),
        oldest_lease_s=None if oldest is None else now - oldest["leased_at"],
        oldest_lease_group=None if oldest is None else oldest["group_id"],
        oldest_lease_worker=None if oldest is None else oldest["worker_id"],
    )


class LedgerReader:
    """Access for `inspect`, `status` and reports. Never writes, and never makes the owner of the ledger wait."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        """Use `open`."""
        self._db = db
        self._path = path

    @classmethod
    def open(cls, path: Path, *, run_id: str | None = None) -> LedgerReader:
        """Open `path`.

        Raises IntegrityError if it is not a ledger, has another schema, or is of another run than `run_id`.
        """
        check_file(path, run_id)
        return cls(connect_reader(path), path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def run_id(self) -> str:
        """The run that the ledger belongs to."""
        return read_meta(self._db, "run_id")

    def status(self) -> LedgerStatus:
        """Where the groups are now."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return read_status(db, read_settings(db), time.time())

    def payloads(self, group_ids: list[str]) -> list[bytes]:
        """The packed ScoredGroups, in the order of `group_ids`. Raises IntegrityError if one is not stored."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return read_payloads(db, group_ids)

    def kept_steps(self) -> range:
        """The trained steps whose payloads are stored."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return range(int(read_meta(db, "pruned_before")), trained_steps(db))

    def groups_per_step(self) -> int:
        """B of the run."""
        with transaction(self._db, self._path, "DEFERRED") as db:
            return read_settings(db).groups_per_step

    def rewards_of(self, step: int) -> list[tuple[float, ...]]:
        """The rewards of each group of a step, in the order of its batch."""
        rows = self._query("SELECT rewards FROM groups WHERE step = :step ORDER BY slot", {"step": step})
        return [tuple(json.loads(row["rewards"])) for row in rows]

    def payload_at(self, step: int, slot: int) -> bytes | None:
        """The packed ScoredGroup at a place of a batch; None if it is not stored."""
        query = "SELECT payload FROM groups JOIN payloads USING (group_id) WHERE step = :step AND slot = :slot"
        found = self._query(query, {"step": step, "slot": slot})
        return bytes(found[0]["payload"]) if found else None

    def attempts(self, index: int) -> list[GroupRecord]:
        """All groups of a prompt, in the order of their leases."""
        query = (
            "SELECT g.*, EXISTS (SELECT 1 FROM payloads AS p WHERE p.group_id = g.group_id) AS has_payload"
            " FROM groups AS g WHERE g.prompt_index = :index ORDER BY g.attempt"
        )
        return [_record(row) for row in self._query(query, {"index": index})]

    def step_times(self, step: int) -> StepTimes:
        """When the batch of a step, which must have one, was taken, and what followed."""
        query = (
            "SELECT bound_at, (SELECT MIN(published_at) FROM published AS p"
            "   WHERE p.version = s.step + 1 AND p.published_at >= s.bound_at) AS published_at,"
            " (SELECT MIN(committed_at) FROM commits AS c WHERE c.policy_version > s.step) AS committed_at"
            " FROM steps AS s WHERE s.step = :step"
        )
        (row,) = self._query(query, {"step": step})
        return StepTimes(**dict(row))

    def groups(
        self,
        *,
        step: int | None = None,
        state: GroupState | None = None,
        min_reward: float | None = None,
        max_reward: float | None = None,
        text: str | None = None,
    ) -> Iterator[GroupRecord]:
        """The groups that match all given conditions, in the order of their leases.

        The reward conditions match a group with a completion whose reward is in the range. `text` matches a group with
        a prompt message or completion that contains it, ignoring case; only `text` decodes payloads.
        """
        conditions = {
            "g.step = :step": step,
            "+g.state = :state": state,  # the plus makes SQLite walk by rowid instead of sorting a state for each page
            "r.value >= :min_reward": min_reward,
            "r.value <= :max_reward": max_reward,
        }
        given = [condition for condition, value in conditions.items() if value is not None]
        own = [c for c in given if not c.startswith("r.")]
        of_rewards = [c for c in given if c.startswith("r.")]
        if of_rewards:
            own.append(f"EXISTS (SELECT 1 FROM json_each(g.rewards) AS r WHERE {' AND '.join(of_rewards)})")  # noqa: S608
        columns = (
            "g.rowid AS place, g.*, EXISTS (SELECT 1 FROM payloads AS p WHERE p.group_id = g.group_id) AS has_payload"
        )
        where = " AND ".join(["g.rowid > :after", *own])
        query = f"SELECT {columns} FROM groups AS g WHERE {where} ORDER BY g.rowid LIMIT {PAGE}"  # noqa: S608  constants
        values = {"step": step, "state": state, "min_reward": min_reward, "max_reward": max_reward}
        after = 0
        while rows := self._query(query, {"after": after, **values}):
            after = rows[-1]["place"]
            for row in rows:
                if text is None or self._mentions(row["group_id"], text):
                    yield _record(row)

    def _mentions(self, group_id: str, text: str) -> bool:
        found = self._query("SELECT payload FROM payloads WHERE group_id = :group_id", {"group_id": group_id})
        if not found:  # never scored, or pruned
            return False
        rollout = unpack_scored(found[0]["payload"]).rollout
        said = [m["content"] for m in rollout.prompt.messages] + [c.text for c in rollout.completions]
        return any(text.casefold() in part.casefold() for part in said)

    def _query(self, query: str, values: dict[str, object]) -> list[sqlite3.Row]:
        with transaction(self._db, self._path, "DEFERRED") as db:
            return db.execute(query, values).fetchall()


def _record(row: sqlite3.Row) -> GroupRecord:
    return GroupRecord(
        group_id=row["group_id"],
        index=row["prompt_index"],
        attempt=row["attempt"],
        state=row["state"],
        step=row["step"],
        reason=row["reason"],
        worker_id=row["worker_id"],
        version=row["version"],
        leased_at=row["leased_at"],
        scored_at=row["scored_at"],
        summary=None if row["rewards"] is None else from_row(row),
        has_payload=bool(row["has_payload"]),
    )
