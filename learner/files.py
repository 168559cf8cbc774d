"""Folders that are whole or absent: written aside, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

ASIDE = ".partial-"
"""Prefix of the name of a folder that is still being written; a leftover of a crash has it too."""


@contextlib.contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` that becomes `target` when the block ends without an exception.

    Every file is on the disk before the rename and the rename is before the return. After an exception nothing is left.
    """
    aside = target.with_name(ASIDE + target.name)
    shutil.rmtree(aside, ignore_errors=True)  # of a run that died here
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in aside.rglob("*"):
            sync(path)
        sync(aside)
        aside.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
