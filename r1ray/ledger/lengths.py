"""Trained against leased groups by length: shows whether the staleness bound leaves long answers out."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from itertools import groupby

QUARTILES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthQuartile:
    """Outcomes of the groups whose longest completion has `shortest` to `longest` tokens."""

    shortest: int  # tokens
    longest: int  # tokens
    leased: int  # scored groups whose outcome is known: the sum of the next three
    trained: int  # bound to a training step
    stale: int  # dropped because they returned too old
    no_signal: int  # dropped by dynamic sampling

    @property
    def trained_share(self) -> float:
        """`trained` over `leased`, 0 to 1."""
        return self.trained / self.leased


def length_quartiles(db: sqlite3.Connection) -> tuple[LengthQuartile, ...]:
    """The quartiles of the scored groups that were bound to a step or dropped, shortest first.

    The longest completion decides how long a group takes. Groups of equal length are in one quartile, so there are
    fewer than four if lengths repeat, and none before the first batch.
    """
    rows = db.execute(
        "SELECT (SELECT MAX(CAST(value AS INTEGER)) FROM json_each(completion_tokens)) AS tokens,"
        " CASE WHEN step IS NOT NULL THEN 'trained' ELSE cause END AS fate FROM groups"
        " WHERE json_valid(completion_tokens)"  # a damaged row is a violation of its own
        "   AND (step IS NOT NULL OR (state = 'dropped' AND cause IN ('stale', 'no_signal')))"
    ).fetchall()
    found = sorted((int(row["tokens"]), str(row["fate"])) for row in rows if row["tokens"] is not None)
    bounds = [found[max(0, len(found) * q // QUARTILES - 1)][0] for q in range(1, QUARTILES)] if found else []

    def quartile(group: tuple[int, str]) -> int:
        return sum(group[0] > bound for bound in bounds)

    return tuple(_quartile(list(groups)) for _, groups in groupby(found, key=quartile))


def _quartile(groups: list[tuple[int, str]]) -> LengthQuartile:
    fates = [fate for _, fate in groups]
    return LengthQuartile(
        shortest=groups[0][0],
        longest=groups[-1][0],
        leased=len(groups),
        trained=fates.count("trained"),
        stale=fates.count("stale"),
        no_signal=fates.count("no_signal"),
    )
