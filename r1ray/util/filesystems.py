"""The file system behind a path, from /proc/self/mountinfo (proc(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

NETWORK = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "9p", "virtiofs", "vboxsf", "drvfs", "afs", "coda"),
        *("lustre", "beegfs", "gpfs", "ceph", "glusterfs", "gfs2", "ocfs2", "orangefs", "pvfs2", "panfs", "wekafs"),
        *("fuse", "davfs"),
    )
)
"""Types of file systems whose files other machines may change, or whose locks and shared memory cannot be relied on.

`fuse.anything` counts as `fuse`; `fuseblk` is a local disk.
"""

VOLATILE = frozenset(("tmpfs", "ramfs"))
"""Types that keep files in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mounted file system."""

    point: str  # absolute path
    kind: str  # its type, e.g. ext4
    source: str  # e.g. /dev/sda1 or server:/export

    @property
    def network(self) -> bool:
        """Whether the file system is on a network, or in user space."""
        return self.kind in NETWORK or self.kind.split(".")[0] == "fuse"

    @property
    def volatile(self) -> bool:
        """Whether the file system is lost when its machine or container ends."""
        return self.kind in VOLATILE or self.kind == "overlay"

    def __str__(self) -> str:
        return f"{self.kind} ({self.source} at {self.point})"


def mount_of(path: Path, mountinfo: str | None = None) -> Mount | None:
    """The file system that `path` is on, or would be on once it is created. None if the kernel does not tell.

    `mountinfo`: text in the format of /proc/self/mountinfo, which is read if it is None.
    """
    if mountinfo is None:
        try:
            mountinfo = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    target = os.path.realpath(path.expanduser())
    visible: list[Mount] = []
    for line in mountinfo.splitlines():
        mount = _parse(line)
        if mount is None:
            continue
        # A later mount hides the earlier ones at or below its mount point: mountinfo has parents before children.
        visible = [m for m in visible if not _contains(mount.point, m.point)]
        visible.append(mount)
    return max((m for m in visible if _contains(m.point, target)), key=lambda m: len(m.point), default=None)


def _parse(line: str) -> Mount | None:
    """`36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`."""
    left, separator, right = line.partition(" - ")
    fields, described = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(described) < 2:
        return None
    return Mount(point=_unescape(fields[4]), kind=described[0], source=_unescape(described[1]))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _contains(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
