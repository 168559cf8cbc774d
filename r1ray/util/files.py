"""Atomic file writes, and JSON files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError, IntegrityError


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace `path` by `data`: a reader sees the old or the new content, never a part.

    `durable` waits until both the content and the name are on the disk, so that it also survives a power failure.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            if durable:
                os.fsync(f.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync(path.parent)


def refuse_unwritable(path: Path) -> None:
    """Raise ConfigError if this process may not write in the folder `path`, or create it if it does not exist."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"{path} cannot be made: {there} is a file; give another folder")
    if not os.access(there, os.W_OK | os.X_OK) or os.statvfs(there).f_flag & os.ST_RDONLY:
        raise ConfigError(f"{path} cannot be written: {there} is read-only for this user; give another folder")


def is_disk_full(e: BaseException) -> bool:
    """Whether a write failed because the disk or a quota is full.

    Libraries in Rust (safetensors) raise exceptions of their own, whose text ends with the operating system's error.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    return (isinstance(e, OSError) and e.errno in full) or any(f"(os error {code})" in str(e) for code in full)


def fsync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises IntegrityError for other content, and if the file is missing."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise IntegrityError(f"{path} cannot be read: {e}") from e
    if not isinstance(value, dict):
        raise IntegrityError(f"{path}: expected a JSON object, got a {type(value).__name__}")
    return value
