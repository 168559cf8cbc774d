"""The queue's ledger outside the run folder: opened, restored and copied, without Ray."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from actors.queue import QueueOwner
from r1ray.errors import ConfigError, DiskFull, InfrastructureError, IntegrityError
from r1ray.ledger.copies import read_copy, write_copy
from r1ray.ledger.storage import COPY_NAME
from tests.unit.ledger_support import RUN, payload, place_in, rules

Scenario = Callable[[QueueOwner], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def drive(run: Path, scenario: Scenario, *, every_s: float = 1000.0) -> None:
    """Run `scenario` on a new queue whose ledger is in the folder `local` beside the run folder."""

    async def whole() -> None:
        owner = QueueOwner(place_in(run, outside=run.parent / "local", every_s=every_s), rules(), RUN)
        try:
            await asyncio.wait_for(scenario(owner), 60)
        finally:
            await owner.close()

    asyncio.run(whole())


async def step(owner: QueueOwner, number: int) -> None:
    for lease in await owner.lease("w", number, 2, [], 0.0):
        await owner.put([payload(lease.group_id, version=number)], True)
    assert await owner.take(number, 0.0) is not None


def test_a_checkpoint_is_followed_by_a_copy_and_a_lost_ledger_continues_from_it(run: Path) -> None:
    async def first(owner: QueueOwner) -> None:
        opened = await owner.open()
        assert (opened.source, opened.host) == ("created", socket.gethostname())
        assert read_copy(run / COPY_NAME, RUN).bound_steps == 0  # before anything is trained
        await step(owner, 0)
        await owner.commit(1, "step_000001")
        state = await owner.finish_copy()
        assert state is not None
        assert state.last is not None
        assert (state.last.trained_steps, state.problem) == (1, None)
        status = await owner.status()
        assert status.copy is not None
        assert status.free_bytes == pytest.approx(shutil.disk_usage(run.parent).free, rel=0.1)

    async def second(owner: QueueOwner) -> None:
        with pytest.raises(IntegrityError, match="no ledger"):  # no call but `open` begins anew
            await owner.status()
        opened = await owner.open()
        assert (opened.source, opened.bound_steps, opened.stored) == ("restored", 1, 2)
        assert (await owner.open()).source == "restored"  # the answer was lost
        assert (await owner.status()).trained_steps == 1

    drive(run, first)
    shutil.rmtree(run.parent / "local")
    drive(run, second)


def test_a_copy_is_made_every_so_often(run: Path) -> None:
    async def scenario(owner: QueueOwner) -> None:
        await owner.open()
        await step(owner, 0)
        while read_copy(run / COPY_NAME, RUN).bound_steps == 0:
            await asyncio.sleep(0.005)

    drive(run, scenario, every_s=0.01)


def test_calls_are_answered_while_a_copy_hangs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    hanging, release = threading.Event(), threading.Event()

    def hang(*arguments: Any) -> Any:
        hanging.set()
        assert release.wait(30)
        return write_copy(*arguments)

    async def scenario(owner: QueueOwner) -> None:
        await owner.open()
        monkeypatch.setattr("actors.ledger_copies.write_copy", hang)
        await step(owner, 0)
        await owner.commit(1, "step_000001")
        await asyncio.to_thread(hanging.wait, 30)
        await step(owner, 1)
        release.set()
        await owner.finish_copy()
        assert read_copy(run / COPY_NAME, RUN).bound_steps == 2

    drive(run, scenario)


def test_a_full_disk_under_the_copies_is_reported_and_ends_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise DiskFull("no space left to write")

    async def scenario(owner: QueueOwner) -> None:
        await owner.open()
        monkeypatch.setattr("actors.ledger_copies.write_copy", full)
        await step(owner, 0)
        await owner.commit(1, "step_000001")
        state = await owner.finish_copy()
        assert state is not None
        assert state.last is not None
        assert (state.problem, state.last.bound_steps) == ("no space left to write", 0)
        assert owner.identity()["problem"] is None  # which would pause the run
        monkeypatch.undo()
        state = await owner.finish_copy()
        assert state is not None
        assert state.problem is None

    drive(run, scenario)


def test_a_new_ledger_is_not_used_without_a_first_copy(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise DiskFull("no space left to write")

    async def scenario(owner: QueueOwner) -> None:
        monkeypatch.setattr("actors.ledger_copies.write_copy", full)
        with pytest.raises(InfrastructureError, match="no space left"):  # so the call is repeated
            await owner.open()
        monkeypatch.undo()
        await owner.open()

    drive(run, scenario)


def test_a_network_file_system_of_the_queues_machine_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from r1ray.util.filesystems import Mount

    nfs = Mount(point="/", kind="nfs4", source="fs-1:/")
    monkeypatch.setattr("r1ray.run.ledger.mount_of", lambda folder: nfs)

    async def scenario(owner: QueueOwner) -> None:
        with pytest.raises(ConfigError, match=r"run\.ledger_dir = .* is on nfs4 \(fs-1:/ at /\)"):
            await owner.open()
        assert not (run.parent / "local").exists()

    drive(run, scenario)
