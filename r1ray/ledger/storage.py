"""The file of a ledger: creation, identification, connections, and the translation of SQLite's errors."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from r1ray.errors import ConfigError, DeadlineExceeded, DiskFull, InfrastructureError, IntegrityError, R1RayError
from r1ray.ledger.records import LedgerSettings
from r1ray.ledger.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES
from r1ray.util.files import fsync

BUSY_TIMEOUT_S = 30.0
"""Seconds to wait for a lock that another process holds."""

WAL_KEEP_BYTES = 64 * 2**20
"""Size to which SQLite truncates the write-ahead log after a long reader let it grow."""

COPY_NAME = "ledger.copy.sqlite"
"""The copy in the run folder of a ledger that lies elsewhere. It is replaced as a whole and never written."""

OLDEST_SQLITE = (3, 38, 0)
"""3.37 added STRICT tables; 3.38 has JSON functions in every build."""


def create_file(path: Path, run_id: str, settings: LedgerSettings) -> None:
    """Create an empty ledger at `path`, atomically. Raises IntegrityError if one exists already."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(
            f"SQLite: expected {'.'.join(map(str, OLDEST_SQLITE))} or newer, got {sqlite3.sqlite_version}:"
            " install a newer Python or SQLite"
        )
    # A write-ahead log without its database would be replayed into the new one.
    for there in (path, _log(path)):
        if there.exists():
            raise IntegrityError(f"{there} exists already: resume that run, or choose an empty run folder")
    draft = path.with_name(path.name + ".new")
    for suffix in ("", "-journal", "-wal", "-shm"):  # left by a creation that was killed
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    with named_failures(path), closing(sqlite3.connect(draft, isolation_level=None)) as db:
        # This is written to the database file before WAL mode is on, so that the header alone identifies a ledger.
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.executescript("BEGIN;" + TABLES)
        rows = [("run_id", run_id), ("settings", json.dumps(asdict(settings))), ("pruned_before", "0")]
        db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        db.execute("COMMIT")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise InfrastructureError(f"{path}: its file system does not support SQLite's WAL mode: use a local disk")
    draft.replace(path)
    fsync(path.parent)


def check_file(path: Path, run_id: str | None) -> None:
    """Raise IntegrityError unless `path` is a ledger of this schema, and of run `run_id` if given. Writes nothing.

    This reads the first 100 bytes directly (sqlite.org/fileformat.html, 1.3), because SQLite leaves -wal and -shm files
    beside any database that it opens, even read-only.
    """
    if not path.is_file():
        raise IntegrityError(f"{path}: there is no ledger: give the folder of a run")
    with path.open("rb") as f:
        header = f.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise IntegrityError(f"{path} is not a SQLite file: move it away, or give another run folder")
    user_version, application_id = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    if application_id != APPLICATION_ID:
        raise IntegrityError(
            f"{path} is a SQLite file of another program: its application_id is {application_id:#x},"
            f" that of a ledger {APPLICATION_ID:#x}; give another run folder"
        )
    if user_version != SCHEMA_VERSION:
        raise IntegrityError(
            f"{path}: expected ledger schema {SCHEMA_VERSION}, got {user_version}: use the r1ray that began the run,"
            " or begin a new one"
        )
    if run_id is None:
        return
    # Without a log the file is complete by itself, and `immutable` creates no other files. With a log the file may be
    # torn, if a process died while it copied the log into the file.
    with named_failures(path), closing(sqlite3.connect(_uri(path, immutable=not _log(path).exists()), uri=True)) as db:
        found = read_meta(db, "run_id")
    if found != run_id:
        raise IntegrityError(f"{path} belongs to run {found!r}, not to {run_id!r}: give the folder of the right run")


def connect_writer(path: Path) -> sqlite3.Connection:
    """A connection whose commits return only once they are on the disk. Usable from one thread at a time."""
    return _connect(
        path,
        path.absolute().as_uri() + "?mode=rw",
        "synchronous = FULL",  # fsync at every commit: leases and puts survive a power failure, not only a kill
        "foreign_keys = ON",
        f"journal_size_limit = {WAL_KEEP_BYTES}",
    )


def connect_reader(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """A read-only connection that neither waits for the writer nor makes it wait.

    `immutable`: nobody writes the file. SQLite then needs neither locks nor shared memory, nor other files beside it.
    """
    # On read-only media there is no writer, and SQLite cannot create its shared memory.
    read_only_media = not _log(path).exists() and not os.access(path.parent, os.W_OK)
    fixed = immutable or path.name == COPY_NAME or read_only_media
    return _connect(path, _uri(path, immutable=fixed), "query_only = ON")


def has_log(path: Path) -> bool:
    """Whether the newest part of the ledger is in a file of its own, beside `path`."""
    return _log(path).exists()


def _connect(path: Path, uri: str, *pragmas: str) -> sqlite3.Connection:
    with named_failures(path):
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        try:
            for pragma in pragmas:
                db.execute(f"PRAGMA {pragma}")
        except BaseException:
            db.close()
            raise
    return db


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _uri(path: Path, *, immutable: bool) -> str:
    """Read-only; `immutable` promises SQLite that there is no writer, so that it creates no files."""
    return path.absolute().as_uri() + ("?mode=ro&immutable=1" if immutable else "?mode=ro")


def find_meta(db: sqlite3.Connection, key: str) -> str | None:
    """A value of the meta table, or None."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def read_meta(db: sqlite3.Connection, key: str) -> str:
    """A value of the meta table. Raises IntegrityError if it is missing."""
    value = find_meta(db, key)
    if value is None:
        raise IntegrityError(f"the ledger's table meta has no {key}: restore the run folder from a backup")
    return value


def put_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    """Add or replace a value of the meta table."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def write_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    """Replace a value of the meta table."""
    db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))


def read_settings(db: sqlite3.Connection) -> LedgerSettings:
    """The stored rules."""
    return LedgerSettings(**json.loads(read_meta(db, "settings")))


@contextmanager
def transaction(
    db: sqlite3.Connection, path: Path, kind: Literal["IMMEDIATE", "DEFERRED"]
) -> Iterator[sqlite3.Connection]:
    """Commit at the end, roll back on an exception. IMMEDIATE takes the write lock at once; DEFERRED is for readers."""
    with named_failures(path):
        db.execute(f"BEGIN {kind}")
        try:
            yield db
            db.execute("COMMIT")
        finally:
            if db.in_transaction:  # false if SQLite has rolled back by itself
                db.execute("ROLLBACK")


@contextmanager
def savepoint(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Undo what the body changed if it raises IntegrityError; the transaction around it continues."""
    with named_failures(path):
        db.execute("SAVEPOINT part")
    try:
        with named_failures(path):
            yield
    except IntegrityError:
        with named_failures(path):
            db.execute("ROLLBACK TO part")
        raise
    finally:
        if db.in_transaction:  # false if SQLite has rolled back by itself
            with named_failures(path):
                db.execute("RELEASE part")


@contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """Translate SQLite's errors into r1ray's; errors in the SQL itself pass unchanged."""
    try:
        yield
    except sqlite3.Error as e:
        named = _named(e, path)
        if named is None:
            raise
        raise named from e


def _named(e: sqlite3.Error, path: Path) -> R1RayError | None:
    code = getattr(e, "sqlite_errorcode", None)  # absent on misuse of the Python module
    if code is None:
        return None
    # On a full disk SQLite cannot lengthen its shared memory file, and reports that as an error of its own.
    primary = sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else code & 0xFF
    match primary:  # the primary code: sqlite.org/rescode.html
        case sqlite3.SQLITE_FULL:
            return DiskFull(
                f"{path}: no space left to write ({e}); nothing was changed: free space, then repeat or resume"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DeadlineExceeded(
                f"{path}: another process kept it locked for {BUSY_TIMEOUT_S:g} s: stop that process"
            )
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return InfrastructureError(
                f"{path}: cannot be read or written ({e.sqlite_errorname}: {e}): check its disk and permissions"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return IntegrityError(f"{path}: the database is damaged ({e}): restore the run folder from a backup")
        case sqlite3.SQLITE_CONSTRAINT:
            return IntegrityError(f"{path}: the change would break an invariant of the ledger ({e}) and was refused")
    return None
