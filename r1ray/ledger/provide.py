"""Find, restore or create the ledger of a run at the start of its queue.

Three files may hold it: the ledger in its own folder, the ledger in the run folder, and the copy in the run folder. A
ledger that is restored from another file gets a longer `lineage` (meta table). So the file with the longest one is the
run's ledger, and every other must be an ancestor of it: an older disk that comes back cannot be taken for the present
ledger.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

from r1ray.errors import ConfigError, IntegrityError
from r1ray.ledger.audit import LEDGER_NAME
from r1ray.ledger.copies import copy_pages, read_copy
from r1ray.ledger.ledger import Ledger
from r1ray.ledger.records import LedgerSettings
from r1ray.ledger.storage import (
    COPY_NAME,
    check_file,
    connect_reader,
    connect_writer,
    find_meta,
    has_log,
    put_meta,
    transaction,
)
from r1ray.util.files import fsync

Source = Literal["found", "created", "restored"]


def provide(
    file: Path, run_dir: Path, settings: LedgerSettings, run_id: str, *, clock: Callable[[], float] = time.time
) -> tuple[Source, float | None]:
    """Make `file` the ledger of the run. Returns how, and the time of the copy that it was restored from.

    Raises IntegrityError if there is none although the run has checkpoints, or if two files contradict each other;
    ConfigError if the run folder is not on this machine.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"run.dir = {run_dir} is not on the queue's machine: use a folder that all machines share")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    newest = newest_ledger(file, run_dir, run_id)
    if newest is None:
        Ledger.create(file, settings, run_id=run_id, clock=clock).close()
        return "created", None
    if newest == file:
        return "found", None
    copied_at = read_copy(newest, run_id).copied_at if newest.name == COPY_NAME else None
    _restore(newest, file, run_id)
    return "restored", copied_at


def newest_ledger(file: Path, run_dir: Path, run_id: str) -> Path | None:
    """The file that holds the run's ledger; None for a run that has none yet. Writes nothing.

    Raises IntegrityError as `provide` does.
    """
    there = [path for path in dict.fromkeys((file, run_dir / LEDGER_NAME, run_dir / COPY_NAME)) if path.exists()]
    if not there:
        checkpoints = run_dir / "checkpoints"
        if checkpoints.is_dir() and any(checkpoints.iterdir()):
            raise IntegrityError(f"{file} is missing, but there are checkpoints: restore it from a copy")
        return None
    if len(there) == 1:
        check_file(there[0], run_id)
        return there[0]
    lineages = {path: _lineage(path, run_id) for path in there}
    newest = max(there, key=lambda path: len(lineages[path]))  # the first of equals
    for path, lineage in lineages.items():
        if not lineages[newest].startswith(lineage):
            raise IntegrityError(
                f"{path} and {newest} are ledgers of the same run that were continued apart: move the wrong one away"
            )
    return newest


def remove_superseded(file: Path, run_dir: Path, run_id: str) -> None:
    """Remove what a change of `run.ledger_dir` left in the run folder, once the ledger at `file` can do without it."""
    live, copy = run_dir / LEDGER_NAME, run_dir / COPY_NAME
    if file == live:
        copy.unlink(missing_ok=True)
    elif live.exists() and copy.exists() and _lineage(copy, run_id) == _lineage(file, run_id):
        _remove(live)


def _lineage(path: Path, run_id: str) -> str:
    check_file(path, run_id)
    with closing(connect_reader(path, immutable=not has_log(path))) as db:
        return find_meta(db, "lineage") or ""


def _restore(source: Path, file: Path, run_id: str) -> None:
    """Put a snapshot of `source` in the place of `file`. A kill leaves the old state, and the restore is repeated."""
    draft = file.with_name(file.name + ".new")
    _remove(draft)
    copy_pages(source, draft)
    read_copy(draft, run_id, check=True)
    with closing(connect_writer(draft)) as db:
        with transaction(db, draft, "IMMEDIATE"):
            put_meta(db, "lineage", f"{find_meta(db, 'lineage') or ''}/{uuid.uuid4().hex[:8]}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _remove(file)  # with its log, which would be replayed into the new one
    os.replace(draft, file)
    fsync(file.parent)


def _remove(path: Path) -> None:
    """Remove a ledger and SQLite's files beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
