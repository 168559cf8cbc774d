"""Leases of the owner of the ledger, without Ray: answers that are lost, calls that come late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from actors.queue import QueueOwner
from r1ray.ledger import Lease, LedgerReader
from tests.unit.ledger_support import RUN, ids, new_ledger, payload, place_in, rules

Make = Callable[[], QueueOwner]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes the queue actor anew, as Ray does after its death. Four groups may be under way for policy 0."""
    new_ledger(tmp_path).close()
    with ExitStack() as stack:

        def begin() -> QueueOwner:
            queue = QueueOwner(place_in(tmp_path), rules(), RUN)
            stack.callback(queue._ledger.close)
            return queue

        yield begin


def lease(queue: QueueOwner, worker: str, groups: int, held: list[str], version: int = 0) -> list[str]:
    return ids(asyncio.run(queue.lease(worker, version, groups, held, 0.0)))


def leased(tmp_path: Path) -> dict[str, str]:
    reader = LedgerReader.open(tmp_path / "ledger.sqlite")
    found = {g.group_id: g.worker_id for g in reader.groups() if g.state == "leased"}
    reader.close()
    return found


def test_a_lease_whose_answer_was_lost_comes_again_and_nothing_is_orphaned(make: Make, tmp_path: Path) -> None:
    assert lease(make(), "w0", 4, []) == ["0-1", "1-1", "2-1", "3-1"]  # killed after COMMIT: no caller received it
    queue = make()
    assert lease(queue, "w0", 4, []) == ["0-1", "1-1", "2-1", "3-1"]
    assert set(leased(tmp_path)) == {"0-1", "1-1", "2-1", "3-1"}


def test_what_the_worker_holds_does_not_come_again_and_what_it_does_not_hold_comes_before_new_prompts(
    make: Make,
) -> None:
    queue = make()
    assert lease(queue, "w0", 2, []) == ["0-1", "1-1"]
    assert lease(queue, "w0", 1, ["0-1", "1-1"]) == ["2-1"]
    assert lease(queue, "w0", 2, ["0-1"]) == ["1-1", "2-1"]
    assert lease(queue, "w0", 1, ["0-1"]) == ["1-1"]
    assert lease(queue, "w0", 4, ["0-1", "1-1", "2-1"]) == ["3-1"]


def test_leases_of_others_and_stored_groups_do_not_come_again(make: Make) -> None:
    queue = make()
    assert lease(queue, "w0", 2, []) == ["0-1", "1-1"]
    assert lease(queue, "w1", 1, []) == ["2-1"]
    asyncio.run(queue.put([payload("0-1")], False))
    assert lease(queue, "w0", 4, []) == ["1-1"]


def test_a_call_that_comes_late_takes_nothing_from_the_worker(make: Make, tmp_path: Path) -> None:
    queue = make()
    assert lease(queue, "w0", 2, []) == ["0-1", "1-1"]
    assert lease(queue, "w0", 2, []) == ["0-1", "1-1"]  # the same call once more, after the answer to the repeated one
    asyncio.run(queue.put([payload("0-1"), payload("1-1")], False))
    assert lease(queue, "w0", 1, []) == ["2-1"]  # again: it leases a new group, and the answer is lost
    assert lease(queue, "w0", 1, []) == ["2-1"]
    assert set(leased(tmp_path)) == {"2-1"}


def test_a_late_call_of_a_worker_that_was_released_leases_nothing(make: Make, tmp_path: Path) -> None:
    queue = make()
    assert lease(queue, "w0", 2, []) == ["0-1", "1-1"]
    asyncio.run(queue.release_worker("w0", False))
    asyncio.run(queue.serving("w0", 1))
    assert lease(queue, "w0", 2, []) == []
    assert leased(tmp_path) == {}
    assert lease(queue, "w1", 2, []) == ["0-2", "1-2"]


async def wait_with_w1(queue: QueueOwner) -> list[asyncio.Task[list[Lease]]]:
    """Calls of w0, which holds all that policy 0 may lease, and of w1; both wait."""
    held = ids(await queue.lease("w0", 0, 4, [], 0.0))
    calls = [asyncio.create_task(queue.lease(worker, 0, 4, mine, 20.0)) for worker, mine in (("w0", held), ("w1", []))]
    async with asyncio.timeout(20):
        while len(queue._asking) < 2:
            await asyncio.sleep(0)
    return calls


def test_workers_that_wait_together_get_equal_parts(make: Make) -> None:
    async def both() -> list[list[str]]:
        queue = make()
        calls = await wait_with_w1(queue)
        for worker in ("w0", "w1"):
            await queue.serving(worker, 1)
        return [ids(leases) for leases in await asyncio.gather(*calls)]

    assert sorted(asyncio.run(both())) == [["4-1"], ["5-1"]]


def test_a_worker_that_waits_alone_gets_all(make: Make) -> None:
    async def alone() -> list[str]:
        queue = make()
        gone, call = await wait_with_w1(queue)
        await queue.release_worker("w0", drained=False)  # its groups are leased again
        leases = ids(await call)
        gone.cancel()
        return leases

    assert asyncio.run(alone()) == ["0-2", "1-2", "2-2", "3-2"]
