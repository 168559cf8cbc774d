"""Which file a run continues from: its ledger, the copy, or the one that an earlier configuration left."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from r1ray.errors import ConfigError, IntegrityError
from r1ray.ledger import Ledger
from r1ray.ledger.copies import write_copy
from r1ray.ledger.provide import newest_ledger, provide, remove_superseded
from r1ray.ledger.storage import COPY_NAME
from tests.unit.ledger_support import RUN, Clock, rules, train


class Run:
    """A run folder, and local disks of two machines."""

    def __init__(self, folder: Path) -> None:
        self.dir, self.a, self.b = folder / "run", folder / "a" / "x.sqlite", folder / "b" / "x.sqlite"
        self.copy, self.live = self.dir / COPY_NAME, self.dir / "ledger.sqlite"
        (self.dir / "checkpoints").mkdir(parents=True)

    def begin(self, file: Path, steps: int = 0) -> str:
        """A driver whose ledger is `file`: provide it, copy it at once, train, and copy again."""
        source, _ = provide(file, self.dir, rules(), RUN, clock=Clock())
        if file != self.live and source != "found":
            write_copy(file, self.copy, RUN)
        remove_superseded(file, self.dir, RUN)
        self.work(file, steps)
        if file != self.live:
            write_copy(file, self.copy, RUN)
        return source

    def work(self, file: Path, steps: int) -> None:
        with closing(Ledger.open(file, run_id=RUN)) as ledger:
            train(ledger, steps)

    def steps(self, file: Path) -> int:
        with closing(Ledger.open(file, run_id=RUN)) as ledger:
            return ledger.status().bound_steps


@pytest.fixture
def run(folder: Path) -> Run:
    return Run(folder)


def test_a_new_run_gets_a_ledger_and_a_later_driver_finds_it(run: Run) -> None:
    assert run.begin(run.a, steps=1) == "created"
    run.work(run.a, 1)
    assert run.begin(run.a) == "found"
    assert run.steps(run.a) == 2
    assert not run.live.exists()


def test_a_lost_ledger_is_restored_from_the_copy(run: Run) -> None:
    run.begin(run.a, steps=2)
    run.work(run.a, 1)
    shutil.rmtree(run.a.parent)
    source, copied_at = provide(run.a, run.dir, rules(), RUN)
    assert (source, run.steps(run.a)) == ("restored", 2)
    assert copied_at is not None


def test_an_old_disk_that_comes_back_is_not_taken_for_the_ledger(run: Run) -> None:
    run.begin(run.a, steps=3)
    run.begin(run.b, steps=1)  # the machine of `a` is gone
    assert newest_ledger(run.a, run.dir, RUN) == run.copy
    assert run.begin(run.a) == "restored"
    assert run.steps(run.a) == 4


def test_two_ledgers_that_were_continued_apart_are_refused(run: Run) -> None:
    run.begin(run.a, steps=1)
    first = run.copy.read_bytes()
    run.begin(run.b)
    second = run.copy.read_bytes()
    run.copy.write_bytes(first)
    shutil.rmtree(run.a.parent)
    run.begin(run.a)
    run.copy.write_bytes(second)
    with pytest.raises(IntegrityError, match="continued apart"):
        provide(run.a, run.dir, rules(), RUN)


def test_a_ledger_moves_out_of_the_run_folder_and_back(run: Run) -> None:
    assert run.begin(run.live, steps=2) == "created"
    assert run.begin(run.a, steps=1) == "restored"
    assert sorted(p.name for p in run.dir.iterdir()) == ["checkpoints", COPY_NAME]
    assert run.begin(run.live) == "restored"
    assert sorted(p.name for p in run.dir.iterdir()) == ["checkpoints", "ledger.sqlite"]
    assert run.steps(run.live) == 3


def test_a_run_with_checkpoints_does_not_begin_anew(run: Run) -> None:
    (run.dir / "checkpoints" / "step_000001").mkdir()
    with pytest.raises(IntegrityError, match="missing, but there are checkpoints"):
        provide(run.a, run.dir, rules(), RUN)
    with pytest.raises(ConfigError, match="not on the queue's machine"):
        provide(run.a, run.dir / "elsewhere", rules(), RUN)


def test_the_copy_of_another_run_is_refused(run: Run) -> None:
    run.begin(run.a)
    with pytest.raises(IntegrityError, match="belongs to run"):
        provide(run.b, run.dir, rules(), "another")
