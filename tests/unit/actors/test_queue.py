"""The owner of the ledger, without Ray: a ledger that cannot be opened or written for now."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.queue import QueueOwner
from r1ray.errors import DiskFull, InfrastructureError, IntegrityError
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import LedgerSettings
from tests.unit.ledger_support import place_in

SETTINGS = LedgerSettings(groups_per_step=1, max_staleness=1, lease_timeout_s=600, max_attempts=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "ledger.sqlite"
    Ledger.create(made, SETTINGS, run_id="r").close()
    return made


def test_a_ledger_that_cannot_be_opened_for_now_is_opened_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, failures = Ledger.open, [InfrastructureError("disk I/O error")]

    def opening(*arguments: Any, **keywords: Any) -> Ledger:
        if failures:
            raise failures.pop()
        return opened(*arguments, **keywords)

    monkeypatch.setattr(Ledger, "open", opening)

    async def scenario() -> None:
        owner = QueueOwner(place_in(path.parent), SETTINGS, "r")  # where an error would end the actor for good
        with pytest.raises(InfrastructureError, match="disk I/O error"):
            await owner.lease("w", 0, 1, [], 0.0)
        assert owner.identity()["problem"] == "disk I/O error"
        assert len(await owner.lease("w", 0, 1, [], 0.0)) == 1
        await owner.close()

    asyncio.run(scenario())


def test_another_runs_ledger_is_refused_by_its_name(path: Path) -> None:
    async def scenario() -> None:
        owner = QueueOwner(place_in(path.parent), SETTINGS, "another")
        with pytest.raises(IntegrityError, match="belongs to run"):
            await owner.release_all()

    asyncio.run(scenario())


def test_a_write_that_failed_is_told_of_while_it_is_repeated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        owner = QueueOwner(place_in(path.parent), SETTINGS, "r")
        assert owner.identity()["problem"] is None

        def full(payloads: list[bytes]) -> Any:
            raise DiskFull("no room left to write")

        monkeypatch.setattr(owner._ledger, "put_calls", full)
        with pytest.raises(DiskFull):
            await owner.put([b""], True)
        await owner.lease("w", 0, 0, [], 0.0)  # what writes nothing does not mean that there is room
        assert owner.identity()["problem"] == "no room left to write"
        monkeypatch.setattr("actors.queue.PROBLEM_S", 0.0)
        assert owner.identity()["problem"] is None
        await owner.close()

    asyncio.run(scenario())
