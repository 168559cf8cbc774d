"""Checks of the run folder's storage: write, fsync, rename, lock and speed; and that all nodes see the same folder.

The driver holds a lock on a marker file while the nodes look: a node that does not see the marker has other storage,
and one that gets the lock has locks that do not reach other nodes.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from r1ray.preflight.findings import Finding, error, ok, warning
from r1ray.preflight.system import System
from r1ray.run.lock import try_flock
from r1ray.util.files import fsync

SPEED_BYTES = 32 << 20
LEAST_MB_S = 20.0
_BLOCK = 1 << 20
_WHAT = "run folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A file in the run folder's storage that the driver has locked. Producer: `marker`."""

    path: str
    content: str


def existing_folder(path: Path) -> Path:
    """The folder `path`, or the nearest one above it that exists."""
    there = path.absolute()
    while not there.is_dir():
        there = there.parent
    return there


@contextmanager
def marker(folder: Path) -> Iterator[Marker]:
    """A locked file in `folder` for as long as the context lasts. Raises OSError if it cannot be written."""
    path = folder / f".r1ray-doctor-{token_hex(4)}"
    content = token_hex(8)
    with path.open("x", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            yield Marker(path=str(path), content=content)
        finally:
            path.unlink(missing_ok=True)


def storage(system: System, folder: Path, *, speed_bytes: int = SPEED_BYTES) -> Iterator[Finding]:
    """Write, rename and lock files in `folder` as a run does, and measure the speed of writing with fsync."""
    kind = file_system(system, folder)
    own = folder / f".r1ray-doctor-{token_hex(4)}"
    renamed = own.with_name(f"{own.name}.renamed")
    try:
        seconds = _write(own, speed_bytes)
        os.replace(own, renamed)
        fsync(folder)
        locks = _locks(renamed)
    except OSError as e:
        meaning = "checkpoints, logs and the ledger cannot be kept"
        fix = "a folder that this user may write to, on a disk with free space (run.dir)"
        yield error(_WHAT, f"{folder} ({kind}): {e.strerror or e}", meaning=meaning, fix=fix)
        return
    finally:
        own.unlink(missing_ok=True)
        renamed.unlink(missing_ok=True)
    if not locks:
        meaning = "two drivers can write into one run folder at the same time"
        fix = "mount it with working locks (NFS 4, without nolock or local_lock), or give another run.dir"
        yield error(_WHAT, f"{folder} ({kind}): a locked file can be locked again", meaning=meaning, fix=fix)
        return
    mb_s = speed_bytes / 1e6 / max(seconds, 1e-6)
    detail = f"{folder} ({kind}): write, fsync, rename and lock work; {mb_s:.0f} MB/s"
    if mb_s < LEAST_MB_S and speed_bytes >= SPEED_BYTES:
        meaning = f"slow: a checkpoint of 10 GB takes {1e4 / mb_s / 60:.0f} minutes (deadlines.checkpoint_s)"
        yield warning(_WHAT, detail, meaning=meaning, fix="faster storage for run.dir, or a longer deadline")
    else:
        yield ok(_WHAT, detail)


def shared(mark: Marker, *, needed: bool) -> Finding:
    """Check that this node sees the driver's marker and its lock. `needed`: an actor that writes there may run here."""
    path = Path(mark.path)
    verdict = error if needed else warning
    meaning = "checkpoints would be written where the driver does not find them" if needed else "logs stay on the node"
    fix = "an absolute run.dir on storage that every node mounts at the same path"
    try:
        seen = path.read_text(encoding="utf-8")
    except OSError as e:
        return verdict("shared run folder", f"{path.parent}: {e.strerror}", meaning=meaning, fix=fix)
    if seen != mark.content:
        return verdict("shared run folder", f"{path.parent} holds other files here", meaning=meaning, fix=fix)
    try:
        locked = not _get_lock(path)
    except OSError as e:
        return verdict("shared run folder", f"{path}: {e.strerror}", meaning=meaning, fix=fix)
    if not locked:
        meaning = "drivers on two nodes can write into one run folder at the same time"
        fix = "mount it with locks that reach other nodes (NFS 4, without nolock or local_lock)"
        return warning("shared run folder", f"{path.parent}: a lock does not reach this node", meaning=meaning, fix=fix)
    return ok("shared run folder", f"{path.parent} is the driver's, and so are its locks")


def file_system(system: System, folder: Path) -> str:
    """Type of the file system that holds `folder`, from /proc/mounts: ext4, nfs4, ..."""
    rows = [line.split() for line in (system.text("/proc/mounts") or "").splitlines()]
    mounts = [(row[1].replace("\\040", " "), row[2]) for row in rows if len(row) >= 3]
    holding = [m for m in mounts if folder.absolute().is_relative_to(m[0])]
    return max(holding, key=lambda m: len(m[0]))[1] if holding else "unknown file system"


def _write(path: Path, nbytes: int) -> float:
    """Write zeros and wait until they are on the disk; returns the seconds."""
    block = b"\0" * min(_BLOCK, nbytes)
    began = time.monotonic()
    with path.open("xb") as file:
        for _ in range(max(1, nbytes // _BLOCK)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return time.monotonic() - began


def _locks(path: Path) -> bool:
    """Whether a lock keeps out a second one."""
    with path.open("rb+") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        return not _get_lock(path)


def _get_lock(path: Path) -> bool:
    with path.open("r+", encoding="utf-8") as file:
        return try_flock(file, fcntl.LOCK_EX)
