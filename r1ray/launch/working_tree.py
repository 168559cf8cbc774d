"""Pack the working tree of the operator for a job: what `ray up` copies to the nodes, without what a run makes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from r1ray.errors import ConfigError

EXCLUDED = (
    ".git",
    ".venv",
    "runs",
    "models",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
)
"""Names that are not packed: `runs` and `models` at the top of the tree, the others everywhere. As in cluster.yaml."""

AT_THE_TOP = frozenset({"runs", "models"})

MAX_FILE_MIB = 32
MAX_TREE_MIB = 256
"""The head keeps the packed tree in memory, and each node that starts an actor fetches it."""

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same tree gives the same archive, which Ray uploads once


def pack(tree: Path, archive: Path) -> int:
    """Write the files of `tree` into the zip file `archive`; returns their number.

    Raises ConfigError that names the largest files if one exceeds MAX_FILE_MIB, or all together MAX_TREE_MIB.
    """
    files = sorted(_files(tree))
    sizes = {path: path.stat().st_size for path in files}
    _refuse_large(tree, sizes)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for path in files:
            entry = zipfile.ZipInfo(str(path.relative_to(tree)), _LONG_AGO)
            entry.external_attr = (path.stat().st_mode & 0o777) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, path.read_bytes())
    return len(files)


def _files(tree: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(tree):
        top = Path(here) == tree
        folders[:] = [name for name in folders if not _excluded(name, top)]
        for name in names:
            path = Path(here, name)
            if path.is_file() and not _excluded(name, top):
                yield path


def _excluded(name: str, top: bool) -> bool:
    return name in EXCLUDED and (top or name not in AT_THE_TOP)


def _refuse_large(tree: Path, sizes: dict[Path, int]) -> None:
    largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
    named = ", ".join(f"{path.relative_to(tree)} ({sizes[path] / 2**20:.0f} MiB)" for path in largest)
    fix = "move them to the file system that the hosts share, or below runs/ or models/, which are not packed"
    if largest and sizes[largest[0]] > MAX_FILE_MIB << 20:
        raise ConfigError(f"{tree} has files of more than {MAX_FILE_MIB} MiB; the largest are {named}: {fix}")
    if sum(sizes.values()) > MAX_TREE_MIB << 20:
        total = sum(sizes.values()) / 2**20
        raise ConfigError(f"{tree} has {total:.0f} MiB, more than {MAX_TREE_MIB}; the largest files are {named}: {fix}")
