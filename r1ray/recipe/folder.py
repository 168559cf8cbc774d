"""The recipe's folder and its records.

DIR/recipe.json   the stages and their states, for reports
DIR/lock          held while a recipe runs
DIR/stages/       NAME.yaml: the configuration of a stage; NAME.json: its attempts (StageAttempt)
DIR/logs/         NAME.log: output of the stage's process
DIR/NAME/         the stage's own folder; lineage.json (Lineage) once it is done
DIR/NAME.1 ...    earlier results that were set aside

lineage.json is written last and atomically, so a stage is either done or not.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from r1ray import __version__
from r1ray.errors import IntegrityError
from r1ray.recipe.stages import Recipe
from r1ray.recipe.tasks import Task
from r1ray.run.folder import RunFolder
from r1ray.run.policy import RECIPE
from r1ray.util.files import read_json, write_atomic
from r1ray.util.versions import installed_versions
from r1ray.util.yaml_text import read_yaml

FORMAT = 2
LINEAGE = "lineage.json"
_GIT_TIMEOUT_S = 10.0


@dataclass(slots=True, kw_only=True)
class StageAttempt:
    """Record of a started stage, with what a resume needs. Written before the stage's process starts."""

    fingerprint: Mapping[str, Any]  # `Task.fingerprint`
    inputs: Mapping[str, str]  # reference -> digest
    attempts: list[dict[str, Any]] = field(default_factory=list)
    # each: started, ended (seconds since the epoch), exit (code), pid, pid_started

    @property
    def seconds(self) -> float:
        """Wall time of all attempts so far."""
        return float(sum(max(0.0, (a.get("ended") or a["started"]) - a["started"]) for a in self.attempts))

    def write(self, task: Task) -> None:
        """Replace the record of the stage."""
        write_atomic(_attempt_file(task), json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode())

    @classmethod
    def read(cls, task: Task) -> StageAttempt | None:
        """Return the record, or None if the stage was never started. Raises IntegrityError if it is damaged."""
        return cls(**_read_record(_attempt_file(task))) if _attempt_file(task).exists() else None

    def delete(self, task: Task) -> None:
        """Delete the record, after the stage's folder has been set aside."""
        _attempt_file(task).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """How the output of a finished stage was made. Producer: runner. Consumers: status, plan, report, export."""

    recipe: str
    stage: str
    kind: str
    doc: str
    command: list[str]  # that started it, after `python -m r1ray`
    fingerprint: dict[str, Any]  # `Task.fingerprint`
    config: dict[str, Any]  # resolved, as the command got it; empty if the kind takes none
    inputs: dict[str, dict[str, str]]  # reference -> path, digest
    output: dict[str, str]  # path, digest
    seed: int
    code: dict[str, str]  # r1ray, commit if known, python, torch, ...
    started: float  # seconds since the epoch
    ended: float
    seconds: float  # wall time of all attempts
    attempts: int

    def write(self, folder: Path) -> None:
        """Write lineage.json into the stage's folder, which marks the stage as done."""
        write_atomic(folder / LINEAGE, json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Lineage | None:
        """Return the lineage in `folder`, or None if there is none. Raises IntegrityError if it is damaged."""
        path = folder / LINEAGE
        return cls(**_read_record(path)) if path.exists() else None


def recipe_file(recipe: Recipe) -> Path:
    """Path of the recipe's record."""
    return recipe.dir / RECIPE


@contextlib.contextmanager
def lock_folder(recipe: Recipe) -> Iterator[None]:
    """Create the recipe's folder if needed and lock it. Raises ConfigError if another process holds it."""
    for path in (recipe.dir, recipe.dir / "stages", recipe.dir / "logs"):
        path.mkdir(parents=True, exist_ok=True)
    recipe.dir.chmod(0o700)
    with RunFolder(recipe.dir) as lock:
        lock.lock()
        yield


def start_attempt(task: Task, attempt: StageAttempt) -> None:
    """Write the stage's configuration and its record, and close an attempt that was killed."""
    for earlier in attempt.attempts:
        if earlier["ended"] is None:  # the recipe was killed then; the log's time says how long the stage worked
            written = task.log.stat().st_mtime if task.log.exists() else 0.0
            earlier["ended"] = max(earlier["started"], written)
    task.folder.mkdir(exist_ok=True)
    if task.config_yaml:
        write_atomic(task.config_file, task.config_yaml.encode())
    attempt.write(task)


def write_recipe_record(recipe: Recipe, tasks: Sequence[Task], states: Mapping[str, str]) -> None:
    """Write recipe.json: per stage its kind, inputs, state, wall time in seconds (null until done) and output."""
    stages = []
    for task in tasks:
        lineage = Lineage.read(task.folder)
        stages.append(
            {
                "name": task.name,
                "kind": task.kind.name,
                "doc": task.stage.doc,
                "inputs": [item.reference for item in task.inputs],
                "state": states.get(task.name, "pending"),
                "seconds": lineage.seconds if lineage else None,
                "output": str(task.output),
                "published": task.stage.published,
            }
        )
    record = {
        "format": FORMAT,
        "name": recipe.name,
        "doc": recipe.doc,
        "dir": str(recipe.dir),
        "seed": recipe.seed,
        "files": list(recipe.files),
        "stages": stages,
        "claims": [asdict(claim) for claim in recipe.claims],
    }
    write_atomic(recipe_file(recipe), json.dumps(record, indent=1, ensure_ascii=False).encode())


def plain_config(task: Task) -> dict[str, Any]:
    """Return the resolved configuration as plain values; empty if the kind takes none."""
    return read_yaml(task.config_yaml) if task.config_yaml else {}


def code_versions() -> dict[str, str]:
    """Return the versions of r1ray and its packages, and the commit of a checkout (`+`: uncommitted changes)."""
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
    """Return the seconds since the epoch, rounded to milliseconds as in the records."""
    return round(time.time(), 3)


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    return done.stdout.strip()


def _attempt_file(task: Task) -> Path:
    return task.config_file.with_suffix(".json")


def _read_record(path: Path) -> dict[str, Any]:
    """Return the record in `path` without its format. Raises IntegrityError if it has another format."""
    raw = read_json(path)
    found = raw.pop("format", None)
    if found != FORMAT:
        raise IntegrityError(f"{path}: expected format {FORMAT}, got {found}: run the recipe with --fresh")
    return raw
