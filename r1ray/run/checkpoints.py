"""Checkpoint folders as files: which are there, which of them is whole, and of which policy. No torch.

The learner writes them (`learner.checkpoint`); whoever judges a run reads them here.

    step_000020/
        manifest.json    size and SHA-256 of every file; written last
        trainer.json     run, policy version, and what else the learner needs to know
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

FORMAT = 2
MANIFEST = "manifest.json"
TRAINER = "trainer.json"
HASHED_AT_ONCE = 8
_NAME = re.compile(r"step_(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The newest whole checkpoint of a folder, and what had to be passed over."""

    path: Path | None
    warnings: tuple[str, ...]  # one for each newer checkpoint that is not whole: its name and what is wrong with it


def step_of(folder: Path) -> int:
    """The policy version in the name of a checkpoint."""
    return int(folder.name.removeprefix("step_"))


def all_in(checkpoints: Path) -> list[tuple[int, Path]]:
    """(policy version by the name, folder) of every checkpoint, whole or not, oldest first."""
    if not checkpoints.is_dir():
        return []
    return sorted((step_of(p), p) for p in checkpoints.iterdir() if p.is_dir() and _NAME.fullmatch(p.name))


def find_latest(checkpoints: Path, *, run_id: str | None = None) -> Found:
    """The newest whole checkpoint, of run `run_id` (None: any); the others are passed over with a warning each."""
    warnings: list[str] = []
    for step, path in reversed(all_in(checkpoints)):
        wrong = defect(path) or _misplaced(path, step, run_id)
        if wrong is None:
            return Found(path=path, warnings=tuple(warnings))
        warnings.append(f"checkpoint {path.name} skipped: {wrong}")
    return Found(path=None, warnings=tuple(warnings))


def defect(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None where every file has the size and hash that its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        known, files = manifest["format"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"{MANIFEST} cannot be read: {e!r}"
    if known != FORMAT:
        return f"it has format {known}, this code reads {FORMAT}"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} is not what the manifest says"
    found = fingerprints([folder / name for name in files])
    return next((f"{name} is not what the manifest says" for name in files if found[name] != files[name]), None)


def _misplaced(folder: Path, step: int, run_id: str | None) -> str | None:
    """What is wrong with a whole checkpoint that its place says to be of policy `step` and run `run_id`."""
    try:
        trainer = json.loads((folder / TRAINER).read_text())
        version, run = trainer["policy_version"], trainer["run_id"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"{TRAINER} cannot be read: {e!r}"
    if version != step:
        return f"it is of policy {version}"
    return None if run_id in (None, run) else f"it is of run {run}"


def fingerprints(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """What the manifest says of files, by name: size in bytes, SHA-256. Several at once: there may be a terabyte of them."""
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        return dict(zip((path.name for path in paths), pool.map(_fingerprint, paths), strict=True))


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
