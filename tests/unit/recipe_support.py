"""A small recipe, and a runner whose stages are a script instead of r1ray commands."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from rich.console import Console

from r1ray.recipe.preflight import Selection
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.runner import Runner
from r1ray.recipe.screen import Screen
from r1ray.recipe.stages import Recipe
from r1ray.recipe.tasks import Task, make_tasks

SCRIPT = Path(__file__).with_name("recipe_stage.py")
PROGRAM = (sys.executable, "-I", str(SCRIPT))
STAGES = ["base", "zero", "eval_zero", "cold", "tuned", "eval_tuned", "helpful"]

RECIPE = """
name: small
dir: out
seed: 3
inputs:
  base: {kind: tiny}
  pairs: pairs.jsonl
common:
  extends: [tiny]
evaluation:
  options: {benchmarks: [bus], k: 4}
stages:
  zero:
    kind: rl
    doc: Reasoning from nothing.
    config:
      model: {path: "@base"}
      run: {steps: 3}
  cold:
    kind: sample
    config:
      model: {path: "@zero"}
      data: {train: [{name: bus, path: bus, limit: 8}]}
  tuned:
    kind: sft
    config:
      model: {path: "@base"}
      data:
        train: [{name: cold, kind: parquet, path: "@cold"}]
        evaluation: []
  helpful:
    kind: reward_model
    config:
      model: {path: "@base"}
      data:
        train: [{name: pairs, kind: jsonl, path: "@pairs"}]
        evaluation: []
      reward_model: {kind: pairwise}
"""


def write_recipe(text: str = RECIPE, name: str = "small.yaml") -> Path:
    """Write the recipe, and the file that it reads, into the working directory."""
    Path("pairs.jsonl").write_text('{"prompt": "a"}\n')
    path = Path(name)
    path.write_text(text)
    return path


def run(path: Path, *overlays: str, **selection: object) -> int:
    """Run the recipe with scripted stages, as `r1ray recipe` would. Its output goes to the file `screen`."""
    recipe, tasks = _read(path, overlays, (path.read_text(), *(Path(o).read_text() for o in overlays)))
    with Path("screen").open("a") as file:
        runner = Runner(recipe, tasks, Screen(Console(file=file, width=120)), program=PROGRAM)
        return runner.run(Selection(**selection))  # type: ignore[arg-type]


@functools.cache
def _read(path: Path, overlays: tuple[str, ...], texts: tuple[str, ...]) -> tuple[Recipe, tuple[Task, ...]]:
    """Read each content, `texts`, only once: loading configurations takes the longest."""
    recipe = read_recipe(path, overlays)
    return recipe, make_tasks(recipe)


def journal() -> list[str]:
    """Return the steps that stages did since the last call, in order."""
    file = Path("journal")
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def stages_run() -> list[str]:
    """Return the stages that did any step since the last call, in order."""
    return list(dict.fromkeys(line.split()[0] for line in journal()))


def outputs() -> dict[str, str]:
    """Return the output of each stage by name."""
    names = ("model/w", "final/w", "dataset/part-0.parquet", "results.json")
    return {
        stage: next(p.read_text() for n in names if (p := Path("out") / stage / n).exists())
        for stage in STAGES
        if Path("out", stage).exists()
    }


def faults(*lines: str) -> None:
    """Make scripted stages fail: lines of the file `faults`, see recipe_stage.py."""
    for used in Path().glob("fault-*"):
        used.unlink()
    Path("faults").write_text("\n".join(lines))


def overlay(text: str, name: str = "overlay.yaml") -> str:
    """Write an overlay and return its name."""
    Path(name).write_text(text)
    return name


def tasks(text: str = RECIPE, *overlays: str) -> dict[str, Task]:
    """Write a recipe and return its tasks by name."""
    return {task.name: task for task in make_tasks(read_recipe(write_recipe(text), overlays))}
