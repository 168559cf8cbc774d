"""The folder of a recipe: whose it is, who runs it, and what is put there before a stage begins.

DIR/recipe.json   the stages and how they stand, for reports
DIR/lock          held while a recipe runs
DIR/stages/       NAME.yaml: the configuration of a stage; NAME.json: what it was begun with
DIR/logs/         NAME.log: what its process printed
DIR/NAME/         the stage's own folder; lineage.json where it is done
DIR/NAME.1 ...    earlier ones that were set aside
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from r1ray.errors import ConfigError, IntegrityError
from r1ray.recipe.child import started
from r1ray.recipe.lineage import StageAttempt
from r1ray.recipe.records import Recipe
from r1ray.recipe.stage_status import StageStatus
from r1ray.recipe.tasks import Task
from r1ray.run.folder import RunFolder
from r1ray.util.files import read_json, write_atomic


def recipe_file(recipe: Recipe) -> Path:
    """Where the recipe's record is."""
    return recipe.dir / "recipe.json"


def check(recipe: Recipe, *, resume: bool, fresh: bool) -> None:
    """Raise ConfigError where the folder belongs to something else, or there is nothing to resume."""
    if resume and fresh:
        raise ConfigError("--resume and --fresh are two different things: give one of them")
    if resume and not recipe_file(recipe).exists():
        raise ConfigError(f"--resume: {recipe.dir} holds no recipe; without --resume it is begun")
    if not recipe.dir.exists():
        return
    if recipe_file(recipe).exists():
        if not fresh and (name := read_json(recipe_file(recipe)).get("name")) != recipe.name:
            raise ConfigError(
                f"dir = {recipe.dir} holds the recipe {name}: give another dir, or --fresh to set it aside"
            )
    elif not recipe.dir.is_dir() or any(entry.name != "lock" for entry in recipe.dir.iterdir()):
        raise ConfigError(f"dir = {recipe.dir} holds something else than a recipe: give another dir")


@contextlib.contextmanager
def locked(recipe: Recipe) -> Iterator[None]:
    """The recipe's folder, made where it is missing, to this process alone. Raises ConfigError where another one has it."""
    for path in (recipe.dir, recipe.dir / "stages", recipe.dir / "logs"):
        path.mkdir(parents=True, exist_ok=True)
    with RunFolder(recipe.dir) as lock:
        lock.lock()
        yield


def refuse_orphan(task: Task, *, fresh: bool) -> None:
    """Raise ConfigError where the process of a stage still works although the recipe that began it was killed.

    With `fresh`, which sets the record aside, one of another version names nobody; else it raises IntegrityError.
    """
    try:
        begun = StageAttempt.read(task)
    except IntegrityError:
        if not fresh:
            raise
        return
    if begun is None or not begun.attempts:
        return
    pid, since = begun.attempts[-1].get("pid"), begun.attempts[-1].get("pid_started")
    if pid is not None and since is not None and started(pid) == since:
        raise ConfigError(
            f"stage {task.name} is still being run by process {pid}, whose recipe was killed: "
            f"wait for it, or end it with `kill {pid}`"
        )


def prepare(task: Task, standing: StageStatus) -> StageAttempt:
    """Put the configuration of the stage where its command finds it. Returns its record, with what earlier attempts left."""
    begun = standing.begun if standing.state == "begun" else None
    if begun is None:
        assert standing.inputs is not None, "a stage runs when all that it reads is there"
        begun = StageAttempt(fingerprint=task.fingerprint, inputs=standing.inputs)
    for attempt in begun.attempts:
        if attempt["ended"] is None:  # the recipe was killed then; the log says until when the stage worked
            attempt["ended"] = max(attempt["began"], task.log.stat().st_mtime if task.log.exists() else 0.0)
    task.folder.mkdir(exist_ok=True)
    if task.config_yaml:
        write_atomic(task.config_file, task.config_yaml.encode())
    begun.write(task)
    return begun
