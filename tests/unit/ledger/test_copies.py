"""Copies of a ledger in use: one snapshot, complete or absent, whatever happens meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from r1ray.errors import DiskFull, InfrastructureError, IntegrityError
from r1ray.ledger import Ledger, LedgerReader, audit, copies
from r1ray.ledger.copies import read_copy, write_copy
from r1ray.ledger.storage import COPY_NAME
from tests.unit.ledger_support import RUN, Clock, faults_survived, payload, train

Make = Callable[..., Ledger]


@pytest.mark.parametrize(("mode", "at_least"), [("copy", 60), ("bytes", 20), ("restore", 60)])
def test_killed_anywhere_a_copy_is_whole_or_absent(mode: str, at_least: int) -> None:
    assert faults_survived("ledger_copy_crash", mode) >= at_least


def test_a_copy_carries_its_time_and_steps_and_needs_no_other_file(make: Make, folder: Path, clock: Clock) -> None:
    ledger = make()
    train(ledger, 3, checkpoint_every=2)
    ledger.stamp_copy()
    clock.now += 5
    made = write_copy(folder / "ledger.sqlite", folder / COPY_NAME, RUN)
    assert (made.copied_at, made.bound_steps, made.trained_steps) == (clock.now - 5, 3, 2)
    assert audit(folder / COPY_NAME, [2]).ok
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(COPY_NAME)) == [COPY_NAME]


def test_commits_during_a_copy_neither_wait_nor_enter_it(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make(max_staleness=50)
    train(ledger, 20)
    monkeypatch.setattr(copies, "PAGES", 1)
    going, go_on = threading.Event(), threading.Event()

    def pause(_: float) -> None:
        going.set()
        assert go_on.wait(30)

    monkeypatch.setattr(copies.time, "sleep", pause)
    thread = threading.Thread(target=write_copy, args=(folder / "ledger.sqlite", folder / COPY_NAME, RUN))
    thread.start()
    assert going.wait(30)
    train(ledger, 5)  # the copy is held open all the while
    go_on.set()
    thread.join(30)
    assert read_copy(folder / COPY_NAME, RUN, check=True).bound_steps == 20
    assert ledger.status().bound_steps == 25


def test_a_full_disk_leaves_the_earlier_copy(make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make()
    train(ledger, 1)
    source, target = folder / "ledger.sqlite", folder / COPY_NAME
    write_copy(source, target, RUN)
    train(ledger, 1)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no space left"):
        write_copy(source, target, RUN)
    monkeypatch.undo()
    assert read_copy(target, RUN, check=True).bound_steps == 1
    assert not list(folder.glob("*.tmp"))
    assert not list(folder.glob(".*.tmp"))


def test_what_cannot_be_a_copy_is_refused_by_name(make: Make, folder: Path) -> None:
    ledger = make()
    train(ledger, 1)
    target = folder / COPY_NAME
    write_copy(folder / "ledger.sqlite", target, RUN)
    with pytest.raises(IntegrityError, match="belongs to run"):
        read_copy(target, "another")
    damaged = bytearray(target.read_bytes())
    damaged[4096 * 2 : 4096 * 6] = b"\xff" * (4096 * 4)
    target.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="damaged"):
        read_copy(target, RUN, check=True)
    with pytest.raises(InfrastructureError, match="cannot be"):
        write_copy(folder / "ledger.sqlite", folder / "nowhere" / COPY_NAME, RUN)


def test_a_reader_of_the_copy_sees_scored_groups_with_their_payloads(make: Make, folder: Path) -> None:
    ledger = make()
    (lease,) = ledger.lease("w", 0, 1)
    ledger.put(payload(lease.group_id))
    write_copy(folder / "ledger.sqlite", folder / COPY_NAME, RUN)
    with closing(LedgerReader.open(folder / COPY_NAME, run_id=RUN)) as reader:
        assert reader.status().scored == 1
        assert reader.payloads([lease.group_id]) == [payload(lease.group_id)]
