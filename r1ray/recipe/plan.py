"""`r1ray recipe --plan`: the stages as a table, with what is done and what each costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from r1ray.recipe.cost import ASSUMPTIONS, Cost, costs
from r1ray.recipe.preflight import problems
from r1ray.recipe.records import Recipe
from r1ray.recipe.stage_status import StageStatus, assess_all, missing
from r1ray.recipe.tasks import Task
from r1ray.util.formatting import duration

STYLES = {"done": "green", "stale": "yellow", "begun": "yellow", "to do": "cyan"}


def plan(recipe: Recipe, tasks: tuple[Task, ...]) -> RenderableType:
    """The table of a recipe at its size. Writes nothing and needs no GPU. Raises IntegrityError for records that are broken."""
    standings = assess_all(tasks)
    found = costs(recipe, tasks, standings)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("stage", "kind", "reads", "state"):
        table.add_column(title, overflow="fold")
    for title in ("output", "cost", "tokens"):
        table.add_column(title, justify="right", overflow="fold")
    if published := len(recipe.files) == 1:  # of the paper's size, which an overlay leaves
        table.add_column("published", overflow="fold")
    for task in tasks:
        standing, cost = standings[task.name], found[task.name]
        table.add_row(
            task.name,
            task.kind.name,
            " ".join(read.reference for read in task.reads),
            _state(standing),
            _size(task.output),
            _cost(cost),
            _tokens(cost),
            *([Text(task.stage.published)] if published else []),
        )
    lines = [f"{recipe.name}: {recipe.doc}" if recipe.doc else recipe.name, f"in {recipe.dir}", ""]
    below = [_total(found)]
    lacking = {str(r.path) for task in tasks if standings[task.name].lacks for r in missing(task)}
    if lacking:
        below.append(f"Not there, and needed first: {', '.join(sorted(lacking))}")
    if wrong := problems(tasks, tasks, hub=False):
        below += ["The recipe would be refused:", *wrong]
    texts = [Text(line) for line in lines]
    return Group(*texts, table, Text(), *[Text(line) for line in below], Text(ASSUMPTIONS, style="dim"))


def as_json(recipe: Recipe, tasks: tuple[Task, ...]) -> dict[str, Any]:
    """The same as plain values: times in seconds, null where a figure is not known."""
    standings = assess_all(tasks)
    found = costs(recipe, tasks, standings)
    stages = []
    for task in tasks:
        standing, cost = standings[task.name], found[task.name]
        stages.append(
            {
                "name": task.name,
                "kind": task.kind.name,
                "reads": [read.reference for read in task.reads],
                "state": standing.state,
                "why": standing.why,
                "seconds": cost.seconds,
                "measured": cost.measured,
                "estimated_gpu_hours": cost.gpu_hours,
                "generated_tokens": cost.generated,
                "trained_tokens": cost.trained,
                "published": task.stage.published,
            }
        )
    wrong = problems(tasks, tasks, hub=False)
    return {"name": recipe.name, "dir": str(recipe.dir), "stages": stages, "problems": wrong}


def _state(standing: StageStatus) -> Text:
    names = {"begun": "stale" if standing.why else "killed inside"}
    told = "inputs are not there" if standing.lacks else standing.why
    why = f" ({told})" if told else ""
    return Text(names.get(standing.state, standing.state) + why, style=STYLES[standing.state])


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
        f"~ {duration(expected)} to come" if expected else "",
    ]
    parts += [f"~ {_hours(hours)} GPU-hours to come" if hours else ""]
    parts += [f"not known of {', '.join(unknown)}" if unknown else ""]
    return "Cost: " + (", ".join(p for p in parts if p) or "none")
