"""Readers of a run whose ledger lies elsewhere, on the queue's machine and on others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from r1ray.ledger import Ledger
from r1ray.ledger.copies import write_copy
from r1ray.ledger.records import LedgerOpened
from r1ray.ledger.storage import COPY_NAME
from r1ray.run.audit import audit_run
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.run.ledger import find_ledger, record_home
from r1ray.run.status import explain, read_run_status
from r1ray.run.transcripts import Filter, found
from tests.unit.ledger_support import Clock, rules, train, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """A run of three trained steps; the copy of its ledger knows one of them."""
    identity = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m")
    with RunFolder.create(tmp_path / "run", "run: {}\n", identity) as made:
        file = tmp_path / "local.sqlite"
        with closing(Ledger.create(file, rules(), run_id=identity.run_id, clock=Clock())) as ledger:
            train(ledger, 1)
            ledger.stamp_copy()
            write_copy(file, made.path / COPY_NAME, identity.run_id)
            train(ledger, 2)
        write_checkpoint(made.path, 3, identity.run_id)
        yield made


def at(host: str, folder: RunFolder) -> None:
    path = str(folder.path.parent / "local.sqlite")
    opened = LedgerOpened(source="found", host=host, path=path, copied_at=None, stored=0, bound_steps=0)
    record_home(folder, opened)


def test_on_the_queues_machine_the_ledger_itself_is_read(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "head")
    at("head", folder)
    ledger = find_ledger(folder)
    assert ledger is not None
    assert (ledger.path.name, ledger.age()) == ("local.sqlite", None)
    assert [r.groups for r in audit_run(folder.path).rows if (r.what, r.detail) == ("trained", "")] == [6]
    (folder.path.parent / "local.sqlite").unlink()  # its disk is gone
    ledger = find_ledger(folder)
    assert ledger is not None
    assert ledger.path.name == COPY_NAME


def test_a_backup_on_the_queues_machine_is_read_from_its_own_copy(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "head")
    at("head", folder)
    backup = folder.path.parent / "backup"
    shutil.copytree(folder.path, backup)
    ledger = find_ledger(RunFolder(backup))
    assert ledger is not None
    assert ledger.path == backup / COPY_NAME
    linked = folder.path.parent / "linked"
    linked.symlink_to(folder.path)  # another path of the same folder
    assert find_ledger(RunFolder(linked)) == find_ledger(folder)


def test_on_other_machines_the_copy_is_read_and_its_age_is_said(folder: RunFolder) -> None:
    at("head", folder)
    ledger = find_ledger(folder)
    assert ledger is not None
    assert ledger.age(Clock().now + 90) == (
        f"read from the copy of the ledger, made 1m 30s ago (the ledger itself: {ledger.home})"
    )
    assert "local.sqlite on head" in ledger.home
    report = audit_run(folder.path)
    assert report.ok
    assert report.to_json()["copied_at"] == Clock().now
    assert [r.groups for r in report.rows if (r.what, r.detail) == ("trained", "")] == [2]
    status = read_run_status(folder.path)
    assert status.ledger is not None
    assert status.ledger.trained_steps == 1
    assert any(
        line.startswith("counts of groups are read from the copy of the ledger, made ") for line in explain(status)
    )
    assert status.to_json()["ledger_copied_at"] == Clock().now
    assert len(list(found(folder.path, Filter(), limit=9))) == 2
    assert sorted(p.name for p in folder.path.glob("ledger*")) == [COPY_NAME, "ledger.json"]  # SQLite added no file


def test_a_ledger_in_the_run_folder_has_no_other_home(folder: RunFolder) -> None:
    at("head", folder)
    path = str(folder.ledger.absolute())
    record_home(folder, LedgerOpened(source="found", host="h", path=path, copied_at=None, stored=0, bound_steps=0))
    assert not (folder.path / "ledger.json").exists()
