"""`r1ray recipe`: run the stages of a recipe, or show them with their state and cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1ray.cli._output import JsonOption, console, print_json, refuse_together
from r1ray.errors import ConfigError
from r1ray.util.imports import add_import_folders

if TYPE_CHECKING:
    from r1ray.recipe.preflight import Selection
    from r1ray.recipe.stages import Recipe
    from r1ray.recipe.tasks import Task


def register(app: typer.Typer) -> None:
    """Add `recipe`."""
    app.command()(recipe)


def recipe(
    path: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, e.g. conf/recipes/r1.yaml.")],
    model_overlay: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Configuration file over the recipe, e.g. for a larger model; may be repeated."
        ),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run only this stage.")] = None,
    from_stage: Annotated[
        str | None,
        typer.Option("--from", metavar="STAGE", help="Run this stage again, and all stages that use its output."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue this recipe; fail if it was never started.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start again. The existing folder is kept under another name.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the stages with their state and cost; run nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the stages of a recipe, from base model to distilled students.

    Finished stages are skipped unless an input changed, interrupted ones are resumed. See docs/recipe.md.
    Example: r1ray recipe conf/recipes/r1.yaml
    """
    from r1ray.recipe.reading import read_recipe
    from r1ray.recipe.tasks import make_tasks

    refuse_together(only=only, **{"from": from_stage})
    refuse_together(resume=resume, fresh=fresh)
    if as_json and not plan:
        raise ConfigError("--json: only with --plan")
    add_import_folders([path.parent])  # for the stages too, whose commands inherit it
    read = read_recipe(path, model_overlay or [])
    tasks = make_tasks(read)
    if plan:
        from r1ray.recipe.plan import plan_json, plan_table

        if as_json:
            print_json(plan_json(read, tasks))
        else:
            console.print(plan_table(read, tasks))
        return

    from r1ray.recipe.preflight import Selection

    _run(read, tasks, Selection(only=only, from_stage=from_stage, resume=resume, fresh=fresh))


def _run(read: Recipe, tasks: tuple[Task, ...], selection: Selection) -> None:
    """Run the stages and show what the policies reached. Raises typer.Exit with the exit code."""
    from r1ray.preflight.fork_servers import of_commands, r1ray_command, start_fork_server, start_fork_servers

    start_fork_server(of_commands())  # first of all: it imports for seconds
    from r1ray.recipe.runner import Runner
    from r1ray.recipe.screen import Screen
    from r1ray.report.recipe_page import summary_table
    from r1ray.report.recipe_record import load_recipe

    def prepare(stages: Sequence[Task]) -> None:
        start_fork_servers([(s.config, s.kind.use) for s in stages if s.config is not None and s.kind.use is not None])

    code = Runner(read, tasks, Screen(console), r1ray_command(), prepare=prepare).run(selection)
    if (table := summary_table(load_recipe(read.dir))) is not None:
        console.print(table)
    raise typer.Exit(code)
