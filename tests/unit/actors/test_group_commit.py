"""Puts that arrive together share one transaction, and a bad one fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors import group_commit
from actors.group_commit import GroupCommit
from r1ray.errors import DiskFull, IntegrityError, WireError
from r1ray.ledger import Ledger, audit
from tests.unit.ledger_support import new_ledger, payload


class Counted:
    """A ledger of 20 leased groups that counts its transactions."""

    def __init__(self, folder: Path) -> None:
        self.ledger = new_ledger(folder, max_staleness=50)
        self.ids = [lease.group_id for lease in self.ledger.lease("w", 0, 20)]
        self.commits = 0
        self.ledger._db.set_trace_callback(self._count)

    def _count(self, statement: str) -> None:
        self.commits += statement == "COMMIT"

    def state(self, group_id: str) -> str:
        row = self.ledger._db.execute("SELECT state FROM groups WHERE group_id = ?", (group_id,)).fetchone()
        return str(row[0])

    def together(self, *calls: tuple[list[bytes], bool]) -> list[Any]:
        async def run() -> list[Any]:
            puts = GroupCommit(lambda: self.ledger)
            return await asyncio.gather(*(puts.put(p, atomic) for p, atomic in calls), return_exceptions=True)

        return asyncio.run(run())


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path)


def test_calls_of_one_turn_share_a_commit(counted: Counted, tmp_path: Path) -> None:
    assert counted.together(*(([payload(i)], True) for i in counted.ids)) == [["accepted"]] * 20
    assert counted.commits == 1
    assert counted.together(([payload(counted.ids[0])], True)) == [["duplicate"]]
    assert counted.commits == 2
    counted.ledger.close()
    assert audit(tmp_path / "ledger.sqlite", []).ok


def test_a_refused_payload_fails_its_own_call(counted: Counted) -> None:
    a, b, c, d, e = counted.ids[:5]
    good, refused, atomic, partly, unknown = counted.together(
        ([payload(a)], True),
        ([b"not a group"], True),
        ([payload(b), payload(c, index=99)], True),
        ([payload(d), b"not a group", payload(e)], False),
        ([payload("999-1")], True),
    )
    assert good == ["accepted"]
    assert isinstance(refused, WireError)
    assert isinstance(atomic, WireError)
    assert isinstance(partly, WireError)
    assert isinstance(unknown, IntegrityError)
    assert [counted.state(i) for i in (a, b, c, d, e)] == ["scored", "leased", "leased", "scored", "leased"]
    assert counted.commits == 1


def test_a_full_disk_fails_every_call_of_the_commit(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Any:
        raise DiskFull("no space left to write")

    put: Callable[..., Any] = Ledger.put_calls
    monkeypatch.setattr(Ledger, "put_calls", full)
    calls = [([payload(i)], True) for i in counted.ids[:3]]
    assert [type(error) for error in counted.together(*calls)] == [DiskFull] * 3
    monkeypatch.setattr(Ledger, "put_calls", put)
    assert counted.together(*calls) == [["accepted"]] * 3


def test_a_crowd_is_divided_into_several_commits(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MOST_CALLS", 8)
    assert counted.together(*(([payload(i)], False) for i in counted.ids)) == [["accepted"]] * 20
    assert counted.commits == 3
