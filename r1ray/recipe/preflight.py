"""Select the stages to run, and find what would stop a later stage before the first one starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1ray.errors import ConfigError, IntegrityError
from r1ray.evaluation.benchmarks.prepare import prepare
from r1ray.evaluation.benchmarks.registry import find
from r1ray.preflight.environment import check_model
from r1ray.recipe.folder import StageAttempt, recipe_file
from r1ray.recipe.references import StageInput
from r1ray.recipe.stages import Recipe
from r1ray.recipe.status import StageStatus
from r1ray.recipe.tasks import Task
from r1ray.util.child import start_time
from r1ray.util.files import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which stages to run. Producer: the command line. Consumer: `Runner`."""

    only: str | None = None  # this stage alone; the stages that it reads from must be done
    from_stage: str | None = None  # run this stage again and all that read from it; their other inputs must be done
    resume: bool = False  # refuse to start a new recipe
    fresh: bool = False  # set the folder aside and start again


def select_stages(tasks: Sequence[Task], selection: Selection, statuses: Mapping[str, StageStatus]) -> list[Task]:
    """Return the selected stages in order.

    Raises ConfigError if a name in `selection` is no stage, if an input from outside does not exist,
    or if a stage reads from one that is neither done nor selected.
    """
    names = [task.name for task in tasks]
    for name in (selection.only, selection.from_stage):
        if name is not None and name not in names:
            raise ConfigError(f"no stage {name} in this recipe: expected one of {', '.join(names)}")
    selected = list(tasks)
    if selection.only is not None:
        selected = [task for task in tasks if task.name == selection.only]
    elif selection.from_stage is not None:
        selected = _with_readers(tasks, selection.from_stage)
    running = {task.name for task in selected}
    not_done = "set aside by --fresh: remove that option" if selection.fresh else "not done: run that stage first"
    errors: list[str] = []
    for task in selected:
        if statuses[task.name].input_missing:
            errors.append(f"stage {task.name}: {statuses[task.name].reason}")
        for name in [item.stage for item in task.inputs if item.stage is not None and item.stage not in running]:
            if statuses[name].state != "done":
                errors.append(f"stage {task.name}: reads @{name}, which is {not_done}")
    if errors:
        raise ConfigError("\n".join(errors))
    return selected


def check_folder(recipe: Recipe, selection: Selection) -> None:
    """Raise ConfigError if the folder belongs to something else, or if there is nothing to resume."""
    if selection.resume and selection.fresh:
        raise ConfigError("--resume and --fresh exclude each other: give one of them")
    if selection.resume and not recipe_file(recipe).exists():
        raise ConfigError(f"--resume: {recipe.dir} contains no recipe; run without --resume to start one")
    if not recipe.dir.exists():
        return
    if recipe_file(recipe).exists():
        if not selection.fresh and (name := read_json(recipe_file(recipe)).get("name")) != recipe.name:
            raise ConfigError(
                f"dir = {recipe.dir} contains the recipe {name}: give another dir, or --fresh to set it aside"
            )
    elif not recipe.dir.is_dir() or any(entry.name != "lock" for entry in recipe.dir.iterdir()):
        raise ConfigError(f"dir = {recipe.dir} exists and is not the folder of a recipe: give another dir")


def refuse_if_running(task: Task, *, fresh: bool) -> None:
    """Raise ConfigError if the stage's process still runs although the recipe that started it was killed.

    Raises IntegrityError for a damaged record, unless `fresh`, which sets the record aside.
    """
    try:
        record = StageAttempt.read(task)
    except IntegrityError:
        if not fresh:
            raise
        return
    if record is None or not record.attempts:
        return
    pid, since = record.attempts[-1].get("pid"), record.attempts[-1].get("pid_started")
    if pid is not None and since is not None and start_time(pid) == since:
        raise ConfigError(
            f"stage {task.name} is still running as process {pid}, although its recipe was killed: "
            f"wait for it, or end it with `kill {pid}`"
        )


def base_model(task: Task, tasks: Sequence[Task]) -> Path | None:
    """Return the base model of the model that the stage trains or samples from: the first folder of its ancestry.

    It comes from outside or from a stage that needs no model. None if the stage takes no model.
    """
    wanted = task.config.model.path if task.config is not None else task.stage.options.get("model")
    item = next((item for item in task.inputs if item.reference == wanted), None)
    if item is None or item.stage is None:
        return None if item is None else item.path
    producer = next(t for t in tasks if t.name == item.stage)
    return base_model(producer, tasks) or item.path


def find_problems(selected: Sequence[Task], tasks: Sequence[Task], *, hub: bool) -> list[str]:
    """Return the problems of the stages in `selected`, one line each. `tasks`: all stages of the recipe.

    Checks that benchmarks can be read and models fit their configuration. Benchmarks on the hub are
    read (and downloaded) only with `hub`. Missing inputs are not reported here.
    """
    found = [*_model_problems(selected, tasks), *_benchmark_problems(selected, hub)]
    return list(dict.fromkeys(found))


def _with_readers(tasks: Sequence[Task], first: str) -> list[Task]:
    """Return the stage `first` and all stages that read from it, directly or not."""
    names = {first}
    for task in tasks:
        if any(item.stage in names for item in task.inputs):
            names.add(task.name)
    return [task for task in tasks if task.name in names]


def _model_problems(selected: Sequence[Task], tasks: Sequence[Task]) -> Iterator[str]:
    outputs = {task.output for task in tasks}  # models that this recipe builds need no check
    for task in selected:
        folder = base_model(task, tasks)
        if task.config is None or task.kind.use is None or folder is None or folder in outputs or not folder.is_dir():
            continue
        for p in check_model(task.config, folder, task.kind.use):
            yield f"stage {task.name}, with the model in {folder}: {p.key} = {p.value}: {p.message} ({p.fix})"


def _benchmark_problems(selected: Sequence[Task], hub: bool) -> Iterator[str]:
    tried: dict[tuple[str, str | None, int | None], str | None] = {}
    for task in selected:
        for spec in task.options["benchmarks"] if task.kind.name == "eval" else []:
            benchmark, limit = find(spec), task.options.get("limit")
            given = task.options.get("data", {}).get(benchmark.name)
            item = _input_at(task, given)
            later = item is not None and not item.path.exists() and not item.hub  # an earlier stage produces it
            if benchmark.row is None or later or not (hub or (item is not None and item.path.exists())):
                continue
            key = (spec, given, limit)
            if key not in tried:
                tried[key] = _read_error(spec, given, limit)
            if (error := tried[key]) is not None:
                yield f"stage {task.name}: {error}"


def _input_at(task: Task, given: str | None) -> StageInput | None:
    return next((item for item in task.inputs if given is not None and str(item.path) == given), None)


def _read_error(spec: str, given: str | None, limit: int | None) -> str | None:
    """Read a benchmark completely; return the error, if any."""
    benchmark = find(spec)
    try:
        prepare(benchmark, {} if given is None else {benchmark.name: given}, limit)
    except ConfigError as e:
        return str(e)
    return None
