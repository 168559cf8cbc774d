"""Checkpoint folders as files: which exist, which are complete, and of which policy. Imports no torch.

`learner.checkpoint` writes them; the audit, the controller and `export` read them through this module.

    step_000020/
        manifest.json    size and SHA-256 of every file; written last
        trainer.json     run, policy version, and other state of the learner
        ...
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 3
READABLE = (2, FORMAT)
"""Formats that are read. In 2 rank 0 wrote whole tensors; otherwise they are the same."""
MANIFEST = "manifest.json"
TRAINER = "trainer.json"
HASHED_AT_ONCE = 8
_NAME = re.compile(r"step_(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The newest complete checkpoint of a folder, and the newer ones that were skipped."""

    path: Path | None
    warnings: tuple[str, ...]  # one for each newer, incomplete checkpoint: its name and its defect


def step_of(folder: Path) -> int:
    """The policy version in the name of a checkpoint."""
    return int(folder.name.removeprefix("step_"))


def list_checkpoints(checkpoints: Path) -> list[tuple[int, Path]]:
    """(policy version in the name, folder) of every checkpoint, complete or not, oldest first."""
    if not checkpoints.is_dir():
        return []
    return sorted((step_of(p), p) for p in checkpoints.iterdir() if p.is_dir() and _NAME.fullmatch(p.name))


def find_latest(checkpoints: Path, *, run_id: str | None = None) -> Found:
    """The newest complete checkpoint of run `run_id` (None: of any run); newer ones are skipped with a warning each."""
    warnings: list[str] = []
    for step, path in reversed(list_checkpoints(checkpoints)):
        wrong = defect(path) or misplaced(path, step, run_id)
        if wrong is None:
            return Found(path=path, warnings=tuple(warnings))
        warnings.append(f"checkpoint {path.name} skipped: {wrong}")
    return Found(path=None, warnings=tuple(warnings))


def defect(folder: Path) -> str | None:
    """The defect of a checkpoint, or None if every file has the size and hash that the manifest records."""
    if (wrong := structural_defect(folder)) is not None:
        return wrong
    files = read_manifest(folder)["files"]
    found = fingerprints([folder / name for name in files])
    return next((f"{name} does not match the manifest" for name in files if found[name] != files[name]), None)


def structural_defect(folder: Path) -> str | None:
    """The defect of a checkpoint that is seen without reading its files, or None: those that a crash can leave."""
    try:
        manifest = read_manifest(folder)
        known, files = manifest["format"], manifest["files"]
        sizes = {name: entry["size"] for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        return f"{MANIFEST} cannot be read: {e!r}"
    if known not in READABLE:
        return f"expected format {' or '.join(map(str, READABLE))}, got {known}"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} does not match the manifest"
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises OSError or ValueError."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return manifest


def misplaced(folder: Path, step: int, run_id: str | None = None) -> str | None:
    """The defect of a complete checkpoint that should be of policy `step` and run `run_id`."""
    try:
        trainer = json.loads((folder / TRAINER).read_text())
        version, run = trainer["policy_version"], trainer["run_id"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"{TRAINER} cannot be read: {e!r}"
    if version != step:
        return f"expected policy {step}, got {version}"
    return None if run_id in (None, run) else f"expected run {run_id}, got {run}"


def fingerprints(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The manifest's entries for files, by name: size in bytes and SHA-256.

    Several files at once, as they may be large.
    """
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return dict(zip((path.name for path in paths), pool.map(_fingerprint, paths), strict=True))


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
