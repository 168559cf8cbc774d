"""What is written of a stage: `stages/NAME.json` when it begins, `NAME/lineage.json` when it has ended well.

lineage.json is written last, atomically: a stage is done or it is not.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from r1ray import __version__
from r1ray.errors import IntegrityError
from r1ray.recipe.tasks import Task
from r1ray.util.files import read_json, write_atomic
from r1ray.util.versions import installed_versions

FORMAT = 1
LINEAGE = "lineage.json"
_GIT_S = 10.0


@dataclass(slots=True, kw_only=True)
class StageAttempt:
    """A stage that was started; what a resume needs to know. Written before the stage's process starts."""

    fingerprint: Mapping[str, Any]  # `Task.fingerprint`
    inputs: Mapping[str, str]  # reference -> digest
    attempts: list[dict[str, Any]] = field(default_factory=list)  # began, ended (seconds since the epoch), exit, pid

    @property
    def seconds(self) -> float:
        """Wall time of all attempts so far."""
        return float(sum(max(0.0, (a.get("ended") or a["began"]) - a["began"]) for a in self.attempts))

    def write(self, task: Task) -> None:
        """Replace the record of the stage."""
        write_atomic(_begun_file(task), json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode())

    @classmethod
    def read(cls, task: Task) -> StageAttempt | None:
        """The record; None where the stage was never started. Raises IntegrityError where it cannot be read."""
        return cls(**_fields(_begun_file(task))) if _begun_file(task).exists() else None

    def forget(self, task: Task) -> None:
        """Remove the record: its stage has been set aside."""
        _begun_file(task).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """How the output of a finished stage came to be. Producer: runner. Consumers: standing, plan, report, export."""

    recipe: str
    stage: str
    kind: str
    doc: str
    command: list[str]  # that began it, after `python -m r1ray`
    fingerprint: dict[str, Any]  # `Task.fingerprint`
    config: dict[str, Any]  # resolved, as the command got it; empty where it has none
    inputs: dict[str, dict[str, str]]  # reference -> path, digest
    output: dict[str, str]  # path, digest
    seed: int
    code: dict[str, str]  # r1ray, commit where known, python, torch, ...
    began: float  # seconds since the epoch
    ended: float
    seconds: float  # wall time of all attempts
    attempts: int

    def write(self, folder: Path) -> None:
        """Write lineage.json into the folder of the stage; with it the stage is done."""
        write_atomic(folder / LINEAGE, json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Lineage | None:
        """The lineage in `folder`; None where there is none. Raises IntegrityError where it cannot be read."""
        path = folder / LINEAGE
        return cls(**_fields(path)) if path.exists() else None


def code_versions() -> dict[str, str]:
    """r1ray's version, its commit where it runs from a checkout (`+` marks uncommitted changes), and its packages'."""
    versions = {"r1ray": __version__, **installed_versions()}
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return versions
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError) as e:
        return {**versions, "commit": f"unknown: {e}"}
    return {**versions, "commit": commit + ("+" if changed else "")}


def now() -> float:
    """Seconds since the epoch, as the records have them."""
    return round(time.time(), 3)


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=_GIT_S, check=True)
    return done.stdout.strip()


def _begun_file(task: Task) -> Path:
    return task.config_file.with_suffix(".json")


def _fields(path: Path) -> dict[str, Any]:
    """The record in `path` without its format."""
    raw = read_json(path)
    found = raw.pop("format", None)
    if found != FORMAT:
        raise IntegrityError(
            f"{path} has format {found}, this r1ray ({__version__}) reads {FORMAT}: run the recipe with --fresh"
        )
    return raw
