"""Files that are whole or absent: atomic replacement, and lines of JSON that survive a killed writer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1ray.errors import IntegrityError


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
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def to_json(record: Mapping[str, Any]) -> str:
    """One line of JSON; NaN and infinities, which JSON does not have, become null."""
    return json.dumps(_finite(record), ensure_ascii=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Append `record` to a file of JSON lines, in a single write."""
    line = (to_json(record) + "\n").encode()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(fd, line)
    finally:
        os.close(fd)
    if written != len(line):
        raise OSError(f"only {written} of {len(line)} bytes could be appended to {path}; is the disk full?")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; an absent file has none. A last line without its end is not there yet.

    Raises IntegrityError for any other line that is not a JSON map.
    """
    if not path.exists():
        return []
    records = []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as e:
            raise IntegrityError(f"{path}:{number} is not JSON: {e}; the file was changed from outside") from e
        if not isinstance(record, dict):
            raise IntegrityError(f"{path}:{number} holds a {type(record).__name__}, not a map")
        records.append(record)
    return records


def cut_unfinished_line(path: Path) -> None:
    """Remove what a killed writer left of a last line, so that the next line starts at its own beginning."""
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def read_json(path: Path) -> dict[str, Any]:
    """The map in a JSON file. Raises IntegrityError for anything else, and for an absent file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise IntegrityError(f"{path} cannot be read: {e}") from e
    if not isinstance(value, dict):
        raise IntegrityError(f"{path} holds a {type(value).__name__}, not a map")
    return value
