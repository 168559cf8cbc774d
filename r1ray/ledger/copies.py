"""Copies of a ledger that is in use: SQLite's online backup into another folder.

    snapshot --> draft, a few pages at a time --> fsync --> check --> rename

The copy reads one snapshot through a connection of its own, so commits neither wait for it nor make it start again. Its
file appears complete or not at all. `copied_at` in its table `meta` is the time at which it was requested.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from r1ray.errors import DiskFull, InfrastructureError, IntegrityError
from r1ray.ledger.batches import bound_steps, trained_steps
from r1ray.ledger.records import WrittenCopy
from r1ray.ledger.storage import check_file, connect_reader, find_meta, named_failures
from r1ray.util.files import fsync, is_disk_full

PAGES = 64
"""Pages of 4 KiB that are copied between two pauses."""

PAUSE_S = 0.002

PAGES_BETWEEN_SYNCS = 1024
"""Writing 4 MiB to the disk at a time keeps the ledger's own fsync short if both are on one disk."""


def write_copy(source: Path, target: Path, run_id: str) -> WrittenCopy:
    """Copy the ledger `source` of run `run_id` to `target`, atomically and durably.

    Raises DiskFull, InfrastructureError, or IntegrityError if the copy does not pass its check; `target` is unchanged
    then.
    """
    began = time.monotonic()
    with _named(target):
        for left in target.parent.glob(f".{target.name}.*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        draft = target.with_name(f".{target.name}.{socket.gethostname()}-{os.getpid()}.tmp")
        try:
            copy_pages(source, draft)
            written = read_copy(draft, run_id, seconds=time.monotonic() - began, check=True)
            draft.replace(target)
            fsync(target.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    return written


def copy_pages(source: Path, draft: Path) -> None:
    """Write a snapshot of the ledger `source` to the new file `draft`, and wait until it is on the disk."""
    # Without locks: nobody else uses the draft, and some network file systems have none.
    uri = f"{draft.absolute().as_uri()}?mode=rwc&nolock=1"
    with closing(connect_reader(source)) as db, closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.execute("SELECT COUNT(*) FROM meta").fetchone()  # fixes the snapshot
        with draft.open("rb") as file:
            synced = 0

            def pause(_: int, remaining: int, total: int) -> None:
                nonlocal synced
                if (done := total - remaining) - synced >= PAGES_BETWEEN_SYNCS:
                    os.fsync(file.fileno())
                    synced = done
                time.sleep(PAUSE_S)

            db.backup(copy, pages=PAGES, progress=pause)
    with draft.open("rb") as file:
        os.fsync(file.fileno())


def read_copy(path: Path, run_id: str | None, *, seconds: float = 0.0, check: bool = False) -> WrittenCopy:
    """What the copy at `path` holds; `check` reads all of it first.

    Raises IntegrityError if it is damaged or foreign.
    """
    check_file(path, run_id)
    with named_failures(path), closing(connect_reader(path, immutable=True)) as db:
        if check and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise IntegrityError(f"{path}: the copy of the ledger is damaged ({found}): check the memory and the disk")
        stamp = find_meta(db, "copied_at")
        return WrittenCopy(
            copied_at=path.stat().st_mtime if stamp is None else float(stamp),
            bound_steps=bound_steps(db),
            trained_steps=trained_steps(db),
            size=path.stat().st_size,
            seconds=seconds,
        )


@contextmanager
def _named(target: Path) -> Iterator[None]:
    try:
        with named_failures(target):
            yield
    except OSError as e:
        if is_disk_full(e):
            raise DiskFull(f"{target}: no space left to write ({e})") from e
        raise InfrastructureError(f"{target}: cannot be written ({e}): check its disk and permissions") from e
