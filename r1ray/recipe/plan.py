"""`r1ray recipe --plan`: the stages as a table, with the state and the cost of each.

The cost of a finished stage is measured, that of any other one estimated: a forward pass of P
parameters takes 2P operations a token, training 6P (Kaplan et al. 2020, section 2.1). The estimate
leaves out attention over the context, so long contexts cost more, and evaluations during a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from r1ray.config.lengths import longest_completion
from r1ray.config.rules import keeps_reference
from r1ray.errors import ConfigError
from r1ray.models.folder import read_shape
from r1ray.preflight.accelerators import ACCELERATORS
from r1ray.recipe.folder import LINEAGE, Lineage
from r1ray.recipe.preflight import base_model, find_problems
from r1ray.recipe.stages import Recipe
from r1ray.recipe.status import StageStatus, assess_all, missing_inputs
from r1ray.recipe.tasks import Task
from r1ray.util.formatting import duration

STYLES = {"done": "green", "stale": "yellow", "interrupted": "yellow", "pending": "cyan"}

FORWARD, TRAINING = 2, 6
TFLOPS = ACCELERATORS["h100-80"].tflops
GENERATION_SHARE = 0.1
TRAINING_SHARE = 0.35
MEAN_SHARE = 1 / 3
"""Mean length over longest length, if a recipe has no `expect.tokens`."""

ASSUMPTIONS = (
    f"~ marks an estimate: {FORWARD}P operations a generated and {TRAINING}P a trained token, P parameters; a GPU "
    "reaches "
    f"{GENERATION_SHARE:.0%} of {TFLOPS:.0f} TFLOP/s (one H100) generating and {TRAINING_SHARE:.0%} training; "
    "completions "
    "have a third of the maximum length unless the recipe says otherwise."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of one stage; None: unknown. Producer: `costs`. Consumers: `plan_table`, `plan_json`."""

    seconds: float | None = None  # wall time
    measured: bool = False  # `seconds` are of this very stage
    gpu_hours: float | None = None  # estimated
    generated: int | None = None  # estimated tokens, in all
    trained: int | None = None  # estimated tokens, in all


def plan_table(recipe: Recipe, tasks: tuple[Task, ...]) -> RenderableType:
    """Return the plan as a table. Writes nothing and needs no GPU. Raises IntegrityError for damaged records."""
    statuses = assess_all(tasks)
    found = costs(recipe, tasks, statuses)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("stage", "kind", "inputs", "state"):
        table.add_column(title, overflow="fold")
    for title in ("output", "cost", "tokens"):
        table.add_column(title, justify="right", overflow="fold")
    if published := len(recipe.files) == 1:  # published costs hold for the paper's size only, which overlays change
        table.add_column("published", overflow="fold")
    for task in tasks:
        status, cost = statuses[task.name], found[task.name]
        table.add_row(
            task.name,
            task.kind.name,
            " ".join(item.reference for item in task.inputs),
            _state(status),
            _size(task.output),
            _cost(cost),
            _tokens(cost),
            *([Text(task.stage.published)] if published else []),
        )
    lines = [f"{recipe.name}: {recipe.doc}" if recipe.doc else recipe.name, f"in {recipe.dir}", ""]
    below = [_total(found)]
    missing = {str(i.path) for task in tasks if statuses[task.name].input_missing for i in missing_inputs(task)}
    if missing:
        below.append(f"Missing inputs: {', '.join(sorted(missing))}")
    if problems := find_problems(tasks, tasks, hub=False):
        below += ["Problems that would stop the recipe:", *problems]
    texts = [Text(line) for line in lines]
    return Group(*texts, table, Text(), *[Text(line) for line in below], Text(ASSUMPTIONS, style="dim"))


def plan_json(recipe: Recipe, tasks: tuple[Task, ...]) -> dict[str, Any]:
    """Return the plan as plain values: times in seconds, null if a figure is unknown."""
    statuses = assess_all(tasks)
    found = costs(recipe, tasks, statuses)
    stages = []
    for task in tasks:
        status, cost = statuses[task.name], found[task.name]
        stages.append(
            {
                "name": task.name,
                "kind": task.kind.name,
                "inputs": [item.reference for item in task.inputs],
                "state": status.state,
                "reason": status.reason,
                "seconds": cost.seconds,
                "measured": cost.measured,
                "estimated_gpu_hours": cost.gpu_hours,
                "generated_tokens": cost.generated,
                "trained_tokens": cost.trained,
                "published": task.stage.published,
            }
        )
    problems = find_problems(tasks, tasks, hub=False)
    return {"name": recipe.name, "dir": str(recipe.dir), "stages": stages, "problems": problems}


def _state(status: StageStatus) -> Text:
    reason = "missing inputs" if status.input_missing else status.reason
    return Text(status.state + (f" ({reason})" if reason else ""), style=STYLES[status.state])


def _cost(cost: Cost) -> str:
    if cost.seconds is not None:
        return ("" if cost.measured else "~ ") + duration(cost.seconds)
    return "" if cost.gpu_hours is None else f"~ {_hours(cost.gpu_hours)} GPU-h"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _tokens(cost: Cost) -> str:
    words = [(cost.generated, "gen"), (cost.trained, "train")]
    return "\n".join(f"{_short(count)} {what}" for count, what in words if count is not None)


def _short(count: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _size(output: Path) -> str:
    if not output.exists():
        return ""
    files = [output] if output.is_file() else [p for p in output.rglob("*") if p.is_file()]
    size = float(sum(f.stat().st_size for f in files))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _total(found: Mapping[str, Cost]) -> str:
    measured = sum(c.seconds for c in found.values() if c.measured and c.seconds is not None)
    expected = sum(c.seconds for c in found.values() if not c.measured and c.seconds is not None)
    hours = sum(c.gpu_hours for c in found.values() if c.seconds is None and c.gpu_hours is not None)
    unknown = [name for name, c in found.items() if c.seconds is None and c.gpu_hours is None]
    parts = [
        f"{duration(measured)} measured" if measured else "",
        f"~ {duration(expected)} expected" if expected else "",
    ]
    parts += [f"~ {_hours(hours)} GPU-hours expected" if hours else ""]
    parts += [f"unknown for {', '.join(unknown)}" if unknown else ""]
    return "Cost: " + (", ".join(p for p in parts if p) or "none")


def costs(recipe: Recipe, tasks: tuple[Task, ...], statuses: Mapping[str, StageStatus]) -> dict[str, Cost]:
    """Return the cost of each stage by name."""
    models = _Models(recipe, tasks)
    return {task.name: _stage_cost(task, statuses[task.name], models) for task in tasks}


def _stage_cost(task: Task, status: StageStatus, models: _Models) -> Cost:
    if status.state == "done" and status.lineage is not None:
        return Cost(seconds=status.lineage.seconds, measured=True)
    generated, trained = _generated(task), _trained(task)
    seconds = task.stage.expect.seconds
    for earlier in _earlier(task):
        seconds = earlier.seconds
    return Cost(
        seconds=seconds,
        gpu_hours=_gpu_hours(task, models.parameters(task), generated, trained),
        generated=generated,
        trained=trained,
    )


def _gpu_hours(task: Task, parameters: float | None, generated: int | None, trained: int | None) -> float | None:
    if parameters is None or (generated is None and trained is None):
        return None
    config = task.config
    if config is not None and config.learner.num_gpus == 0 and config.rollout.num_gpus == 0:
        return None
    passes = float(TRAINING)
    if task.kind.name == "rl" and config is not None:
        passes += FORWARD * (keeps_reference(config) + (config.algorithm.importance == "decoupled"))
    generation = FORWARD * parameters * (generated or 0) / GENERATION_SHARE
    return (generation + passes * parameters * (trained or 0) / TRAINING_SHARE) / (TFLOPS * 1e12) / 3600


def _generated(task: Task) -> int | None:
    """Estimate the tokens that the stage generates; None if unknown."""
    config, expect = task.config, task.stage.expect
    if config is None or task.kind.name not in ("rl", "sample", "eval"):
        return None
    longest: int = longest_completion(config)
    samples: int | None = config.rollout.group_size
    if task.kind.name == "rl":
        prompts: int | None = config.run.steps * config.learner.groups_per_step
    elif task.kind.name == "sample":
        limits = [source.limit for source in config.data.train]
        prompts = expect.rows or (None if None in limits else sum(limit or 0 for limit in limits))
    else:
        prompts, longest = expect.rows, task.options.get("max_new_tokens", longest)
        samples = task.options.get("k", 1)  # without k each benchmark has its own, and `rows` counts samples
    if prompts is None or samples is None:
        return None
    return int(prompts * samples * (expect.tokens or longest * MEAN_SHARE))


def _trained(task: Task) -> int | None:
    """Estimate the tokens that the stage trains on; None if unknown."""
    config, expect = task.config, task.stage.expect
    if task.kind.name == "rl":
        return _generated(task)
    if task.kind.name == "sft" and config is not None and expect.rows is not None:
        return int(config.sft.epochs * expect.rows * (expect.tokens or config.model.max_length * MEAN_SHARE))
    if (
        task.kind.name == "reward_model"
        and config is not None
        and expect.rows is not None
        and expect.tokens is not None
    ):
        responses = 2 if config.reward_model.kind == "pairwise" else 1
        return int(config.reward_model.epochs * expect.rows * expect.tokens * responses)
    return None


def _earlier(task: Task) -> Iterator[Lineage]:
    """Yield the lineages of the same stage that were set aside, oldest first."""
    folders = task.folder.parent.glob(f"{task.name}.*")
    numbered = sorted((int(f.suffix[1:]), f) for f in folders if f.suffix[1:].isdigit() and (f / LINEAGE).exists())
    for _, folder in numbered:
        if (lineage := Lineage.read(folder)) is not None:
            yield lineage


class _Models:
    """Number of parameters of the model of each stage."""

    def __init__(self, recipe: Recipe, tasks: tuple[Task, ...]) -> None:
        self._stated = {i.path: i.parameters for i in recipe.inputs.values() if i.parameters is not None}
        self._tasks = tasks

    def parameters(self, task: Task) -> float | None:
        """Return the parameters of the model that the stage trains or samples from; None if unknown."""
        folder = base_model(task, self._tasks) or task.output  # without inputs the output is the base itself
        return self._stated.get(str(folder)) or _on_disk(folder)


def _on_disk(folder: Path) -> float | None:
    try:
        return float(read_shape(folder).parameters)
    except ConfigError:  # the model does not exist yet
        return None
