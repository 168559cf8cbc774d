"""What would stop a stage that is to come, told before the first begins: unreadable benchmarks, models that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.evaluation.benchmarks.prepare import prepare
from r1ray.evaluation.benchmarks.registry import find
from r1ray.preflight.environment import check_model
from r1ray.recipe.tasks import Read, Task


def root(task: Task, tasks: Sequence[Task]) -> Path | None:
    """Where the model that a stage trains, or samples from, began: a folder from outside, or of a stage that makes it of nothing.

    None for a stage that takes no model.
    """
    wanted = task.config.model.path if task.config is not None else task.stage.options.get("model")
    read = next((read for read in task.reads if read.reference == wanted), None)
    if read is None or read.stage is None:
        return None if read is None else read.path
    maker = next(t for t in tasks if t.name == read.stage)
    return root(maker, tasks) or read.path


def problems(chosen: Sequence[Task], tasks: Sequence[Task], *, hub: bool) -> list[str]:
    """What is wrong with stages among `chosen`, a line each; empty where nothing is. `tasks`: all stages of the recipe.

    Benchmarks are read whole, those on the hub only with `hub`: that downloads them. What is not there at all is not told here.
    """
    found = [*_models(chosen, tasks), *_benchmarks(chosen, hub)]
    return list(dict.fromkeys(found))


def _models(chosen: Sequence[Task], tasks: Sequence[Task]) -> Iterator[str]:
    made = {task.output for task in tasks}  # by this recipe: fitting is its own business
    for task in chosen:
        folder = root(task, tasks)
        if task.config is None or task.kind.use is None or folder is None or folder in made or not folder.is_dir():
            continue
        for wrong in check_model(task.config, folder, task.kind.use):
            yield f"stage {task.name}, with the model in {folder}: {wrong.key} = {wrong.value}: {wrong.message} ({wrong.fix})"


def _benchmarks(chosen: Sequence[Task], hub: bool) -> Iterator[str]:
    tried: dict[tuple[str, str | None, int | None], str | None] = {}
    for task in chosen:
        for spec in task.options["benchmarks"] if task.kind.name == "eval" else []:
            benchmark, limit = find(spec), task.options.get("limit")
            given = task.options.get("data", {}).get(benchmark.name)
            read = _read(task, given)
            later = read is not None and not read.path.exists() and not read.hub
            if benchmark.row is None or later or not (hub or (read is not None and read.path.exists())):
                continue
            key = (spec, given, limit)
            if key not in tried:
                tried[key] = _unreadable(spec, given, limit)
            if (why := tried[key]) is not None:
                yield f"stage {task.name}: {why}"


def _read(task: Task, given: str | None) -> Read | None:
    return next((read for read in task.reads if given is not None and str(read.path) == given), None)


def _unreadable(spec: str, given: str | None, limit: int | None) -> str | None:
    benchmark = find(spec)
    try:
        prepare(benchmark, {} if given is None else {benchmark.name: given}, limit)
    except ConfigError as e:
        return str(e)
    return None
