"""The ledger as a file: what is refused untouched, what a full disk does, what readers may see."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from r1ray.errors import ConfigError, DeadlineExceeded, DiskFull, InfrastructureError, IntegrityError
from r1ray.ledger import Ledger, LedgerReader, PutOutcome, audit
from r1ray.ledger import storage as storage_module
from r1ray.run.audit import audit_run
from tests.unit.ledger_support import RUN, Clock, fast_folder, new_ledger, payload, rules, train


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as path:
        yield path


def contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def sqlite_file(path: Path, **pragmas: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE guests (name TEXT)")
        for name, value in pragmas.items():
            db.execute(f"PRAGMA {name} = {value}")
        db.execute("PRAGMA journal_mode = WAL")


def foreign_database(path: Path) -> None:
    sqlite_file(path)


def other_schema(path: Path) -> None:
    sqlite_file(path, application_id=int.from_bytes(b"r1ra", "big"), user_version=7)


def other_run(path: Path) -> None:
    Ledger.create(path, rules(), run_id="run-2").close()


def text_file(path: Path) -> None:
    path.write_text("a shopping list\n" * 20)


def short_file(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (foreign_database, "of another program: its application_id is 0x0, that of a ledger 0x72317261"),
        (other_schema, r"expected ledger schema \d+, got 7: use the r1ray that began the run"),
        (other_run, "belongs to run 'run-2', not to 'run-1'"),
        (text_file, "is not a SQLite file"),
        (short_file, "is not a SQLite file"),
        (nothing, "there is no ledger"),
    ],
)
@pytest.mark.parametrize("cls", [Ledger, LedgerReader])
def test_another_file_is_refused_and_left_as_it_was(
    folder: Path, make: Callable[[Path], None], message: str, cls: type[Ledger] | type[LedgerReader]
) -> None:
    path = folder / "ledger.sqlite"
    make(path)
    before = contents(folder)
    with pytest.raises(IntegrityError, match=message):
        cls.open(path, run_id=RUN)
    assert contents(folder) == before


def test_the_run_of_a_killed_ledger_is_read_from_its_log_too(folder: Path) -> None:
    live, killed = folder / "live", folder / "killed"
    live.mkdir()
    ledger = new_ledger(live)
    train(ledger, 2)
    shutil.copytree(live, killed)
    ledger.close()
    before = contents(killed)
    with pytest.raises(IntegrityError, match="belongs to run 'run-1', not to 'run-2'"):
        Ledger.open(killed / "ledger.sqlite", run_id="run-2")
    after = contents(killed)
    assert all(after[name] == before[name] for name in ("ledger.sqlite", "ledger.sqlite-wal"))


def test_creating_never_overwrites(folder: Path) -> None:
    new_ledger(folder).close()
    before = contents(folder)
    with pytest.raises(IntegrityError, match="exists already"):
        new_ledger(folder)
    assert contents(folder) == before


def test_an_orphaned_log_is_not_replayed_into_a_new_ledger(folder: Path) -> None:
    (folder / "ledger.sqlite-wal").write_bytes(b"of a deleted ledger")
    with pytest.raises(IntegrityError, match=r"ledger\.sqlite-wal exists already"):
        new_ledger(folder)


def test_a_creation_that_was_killed_leaves_no_trace(folder: Path) -> None:
    (folder / "ledger.sqlite.new").write_bytes(b"half")
    (folder / "ledger.sqlite.new-journal").write_bytes(b"half")
    new_ledger(folder).close()
    assert list(contents(folder)) == ["ledger.sqlite"]


def test_settings_may_change_between_sessions_but_not_the_batch_size(folder: Path) -> None:
    path = folder / "ledger.sqlite"
    new_ledger(folder).close()
    with closing(Ledger.open(path, rules(max_staleness=3), run_id=RUN)) as ledger:
        assert ledger.status().capacity(0) == 8
    with closing(Ledger.open(path)) as ledger:
        assert (ledger.settings, ledger.run_id) == (rules(max_staleness=3), RUN)
    with pytest.raises(ConfigError, match=r"groups_per_step: expected 2, with which .* was begun, got 4"):
        Ledger.open(path, rules(groups_per_step=4))


def test_everything_acknowledged_is_there_after_reopening(folder: Path) -> None:
    clock = Clock()
    ledger = new_ledger(folder, clock)
    train(ledger, 2)
    ledger.lease("w0", 2, 3)
    ledger.put(payload("4-1", version=2))
    before = ledger.status()
    ledger.close()
    with closing(Ledger.open(folder / "ledger.sqlite", clock=clock)) as again:
        assert again.status() == before
        assert again.put(payload("4-1", version=2)) is PutOutcome.DUPLICATE


def test_every_commit_waits_for_the_disk(folder: Path) -> None:
    with closing(new_ledger(folder)) as ledger:
        assert ledger._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert ledger._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_a_full_disk_has_a_name_and_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = new_ledger(folder)
    ledger.lease("w0", 0, 2)
    before = ledger.status()
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages + 1}")  # the same SQLITE_FULL as ENOSPC
    with pytest.raises(DiskFull, match=r"no space left to write .* free space"):
        ledger.put_many([payload("0-1"), payload("1-1", text="x" * 10_000)])
    assert ledger.status() == before
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    assert ledger.put_many([payload("0-1"), payload("1-1")]) == ["accepted", "accepted"]
    ledger.close()
    assert audit(folder, [0]).ok


def test_a_foreign_lock_has_a_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_ledger(folder).close()
    monkeypatch.setattr(storage_module, "BUSY_TIMEOUT_S", 0.05)
    path = folder / "ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as other, closing(Ledger.open(path)) as ledger:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DeadlineExceeded, match=r"another process kept it locked for 0.05 s"):
            ledger.lease("w0", 0, 1)


def test_damage_is_named(folder: Path) -> None:
    ledger = new_ledger(folder)
    train(ledger, 3)
    ledger.close()
    path = folder / "ledger.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="the database is damaged"):
        Ledger.open(path, rules())
    with pytest.raises(IntegrityError, match="the database is damaged"):
        audit(path, [])


def test_a_misplaced_ledger_is_an_infrastructure_failure(folder: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot be read or written"):
        new_ledger(folder / "absent")


def test_readers_leave_a_closed_ledger_as_it_was_and_read_a_killed_one(folder: Path) -> None:
    live, killed = folder / "live", folder / "killed"
    live.mkdir()
    ledger = new_ledger(live)
    train(ledger, 2)
    shutil.copytree(live, killed)  # what a kill leaves: all that was acknowledged is in the log
    assert audit_run(live).violations == audit_run(killed).violations
    assert [r.groups for r in audit(killed, [2]).rows if r.what == "trained"] == [4, 2, 2]
    assert audit(killed, [2]).ok
    ledger.close()
    before = contents(live)["ledger.sqlite"]
    with closing(LedgerReader.open(live / "ledger.sqlite")) as reader:
        assert len(list(reader.groups())) == 4
    assert contents(live)["ledger.sqlite"] == before


def test_a_run_on_read_only_media_can_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = new_ledger(folder)
    train(ledger, 1)
    ledger.close()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # file modes would not stop a root user
    before = contents(folder)
    assert audit(folder, [1]).ok
    assert contents(folder) == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO groups (group_id, prompt_index, attempt, worker_id, version, leased_at, deadline, state)"
        " VALUES ('0-2', 0, 2, 'w', 0, 0.0, 0.0, 'leased')",  # a second live group of a prompt
        "UPDATE groups SET fate = 'queued' WHERE group_id = '0-1'",
        "UPDATE groups SET state = 'taken' WHERE group_id = '2-1'",
        "UPDATE groups SET state = 'leased' WHERE group_id = '0-1'",
        "UPDATE groups SET slot = 0 WHERE group_id = '1-1'",
        "UPDATE groups SET step = 7 WHERE group_id = '1-1'",
        "INSERT INTO payloads VALUES ('5-1', x'00')",
        "INSERT INTO payloads VALUES ('0-1', x'00')",
        "INSERT INTO published VALUES (-1, 0, 'aa', 0.0)",
    ],
)
def test_the_tables_themselves_refuse_what_must_not_be(folder: Path, statement: str) -> None:
    with closing(new_ledger(folder)) as ledger:
        train(ledger, 1)
        ledger.lease("w0", 1, 1)
        before = ledger.status()
        with pytest.raises(IntegrityError, match="would break an invariant of the ledger"), ledger._transaction() as db:
            db.execute(statement)
        assert ledger.status() == before


def test_shared_memory_that_cannot_grow_is_a_full_disk(tmp_path: Path) -> None:
    """Seen on a volume of 96 KiB: SQLite reports an I/O error of its -shm file."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    with (
        pytest.raises(DiskFull, match="no space left to write"),
        storage_module.named_failures(tmp_path / "ledger.sqlite"),
    ):
        raise error
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_READ, "SQLITE_IOERR_READ"
    with (
        pytest.raises(InfrastructureError, match="SQLITE_IOERR_READ"),
        storage_module.named_failures(tmp_path / "ledger.sqlite"),
    ):
        raise error
