"""Remove shared memory of killed processes: the processes of one engine share some, and SIGKILL allows no clean-up.

Python names such files of vLLM psm_* and sem.mp-*; staged weights are r1ray-weights-* (host_copy.py). A file is removed
if it belongs to this user, is ten minutes old, and no process that we can see has it mapped. Unlinking does not affect
a process that has it mapped, visible or not.
"""

from __future__ import annotations

import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  the mount point
OLD_S = 600.0
STAGED = "r1ray-weights-"


def remove_leftovers(folder: Path = SHARED_MEMORY, proc: Path = Path("/proc")) -> list[str]:
    """Remove unused shared memory; returns the names of the files."""
    uid = proc.joinpath("self").stat().st_uid
    before = time.time() - OLD_S
    old = []
    for pattern in ("psm_*", "sem.mp-*", f"{STAGED}*"):
        for path in folder.glob(pattern):
            try:
                found = path.stat()
            except FileNotFoundError:  # its owner removed it just now
                continue
            if found.st_uid == uid and found.st_mtime < before:
                old.append(path)
    if not old:
        return []
    mapped = _mapped(folder, proc)
    doomed = [path for path in old if str(path) not in mapped]
    for path in doomed:
        path.unlink(missing_ok=True)
    return sorted(path.name for path in doomed)


def _mapped(folder: Path, proc: Path) -> set[str]:
    """Paths below `folder` that a process has in its memory."""
    paths: set[str] = set()
    for maps in proc.glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or is another user's
            continue
        paths.update(line[line.index(str(folder)) :] for line in lines if f" {folder}/" in line)
    return paths
