"""Which shared memory counts as left behind."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from actors.shm_cleanup import OLD_S, remove_leftovers


def make(folder: Path, name: str, age_s: float) -> Path:
    path = folder / name
    path.write_bytes(b"x" * 100)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_old_unmapped_segments_are_removed(tmp_path: Path) -> None:
    make(tmp_path, "psm_old", OLD_S + 1)
    make(tmp_path, "sem.mp-old", OLD_S + 1)
    make(tmp_path, "psm_young", 0)
    make(tmp_path, "someone_elses", OLD_S + 1)
    used = make(tmp_path, "psm_used", OLD_S + 1)
    with used.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        assert remove_leftovers(tmp_path) == ["psm_old", "sem.mp-old"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["psm_used", "psm_young", "someone_elses"]
    assert remove_leftovers(tmp_path) == ["psm_used"]
