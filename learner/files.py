"""Atomic folders: written under a temporary name, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from r1ray.errors import DiskFull
from r1ray.util.files import fsync, is_disk_full

ASIDE = ".partial-"
"""Prefix of the name of a folder that is being written, or was when its process crashed."""


@contextlib.contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an exception.

    Every file is flushed before the rename, and the rename before the return; only then is an earlier `target` removed.
    After an exception the new folder is removed and an earlier `target` is back. Raises DiskFull if there is no room.
    """
    aside: Path | None = None
    try:
        aside = begin_aside(target)
        yield aside
        commit_aside(aside, target)
    except BaseException as e:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        if is_disk_full(e):
            raise DiskFull(no_room(target, e)) from e
        raise


def no_room(target: Path, cause: object) -> str:
    """The message of DiskFull for a folder that could not be written."""
    return f"no room for {target}, nothing of it was kept: free space on its disk ({cause})"


def begin_aside(target: Path) -> Path:
    """Make an empty folder that may become `target`, and remove what killed processes left of earlier ones.

    Its name is new, so a process that still writes to an earlier one cannot write to it.
    """
    replaced = _replaced(target)
    if replaced.exists() and not target.exists():
        replaced.rename(target)  # a process died between the two renames
    if target.parent.is_dir():
        for rest in [p for p in target.parent.iterdir() if p.name.startswith(f"{ASIDE}{target.name}.")]:
            shutil.rmtree(rest, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    aside = target.with_name(f"{ASIDE}{target.name}.{secrets.token_hex(4)}")
    aside.mkdir(parents=True)
    return aside


def commit_aside(aside: Path, target: Path) -> None:
    """Make the folder `aside` be `target`, in place of an earlier one: completely and on the disk, or not at all."""
    for path in aside.rglob("*"):
        fsync(path)
    fsync(aside)
    replaced = _replaced(target)
    _put_in_place(aside, target, replaced)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(target: Path) -> Path:
    return target.with_name(f"{ASIDE}old-{target.name}")


def _put_in_place(aside: Path, target: Path, replaced: Path) -> None:
    """Rename, and flush the names to the disk; undo everything on a failure, so that it can be repeated."""
    if target.exists():
        target.rename(replaced)
    try:
        aside.rename(target)
        fsync(target.parent)
    except BaseException:
        if target.exists():
            target.rename(aside)
        if replaced.exists():
            replaced.rename(target)
        raise


def remove_whole(folder: Path) -> None:
    """Remove a folder of `write_aside`: rename it first, so that a crash leaves nothing incomplete under its name."""
    doomed = folder.with_name(f"{ASIDE}gone-{folder.name}")
    if doomed.exists():  # of a process that died here
        shutil.rmtree(doomed)
    folder.rename(doomed)
    shutil.rmtree(doomed)


@contextlib.contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """Yield an empty folder `.TARGET-...` beside `target`, removed at the end. Remove those of killed processes first.

    Each is locked by the process that uses it.
    """
    with _locked(target.parent):  # no other process removes the folder between its creation and its lock
        for rest in target.parent.glob(f".{target.name}-*"):
            with contextlib.suppress(BlockingIOError), _locked(rest, fcntl.LOCK_NB):
                shutil.rmtree(rest)
        scratch = tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent)
        lock = _locked(Path(scratch.name))
        lock.__enter__()
    with scratch as folder, contextlib.ExitStack() as stack:
        stack.push(lock)
        yield Path(folder)


@contextlib.contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)
