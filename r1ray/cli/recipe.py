"""`r1ray recipe`: the stages of a recipe one after another, or what they are and cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli._output import JsonOption, console, print_json, refuse_together
from r1ray.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add `recipe`."""
    app.command()(recipe)


def recipe(
    path: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, e.g. conf/recipes/r1.yaml.")],
    model_overlay: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Another size or other values, merged in; may be given several times."),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Run this stage anew, and all that read from it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue; refused where there is nothing to continue.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; keep what is there under another name.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show the stages, what is done, and what each costs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: finished stages are skipped unless an input changed, a killed one continues inside. See docs/recipe.md."""
    from r1ray.recipe.reading import read_recipe
    from r1ray.recipe.tasks import make_tasks

    refuse_together(only=only, **{"from": since})
    refuse_together(resume=resume, fresh=fresh)
    if as_json and not plan:
        raise ConfigError("--json belongs to --plan")
    read = read_recipe(path, model_overlay or [])
    tasks = make_tasks(read)
    if plan:
        from r1ray.recipe import plan as planning

        if as_json:
            print_json(planning.as_json(read, tasks))
        else:
            console.print(planning.plan(read, tasks))
        return

    from r1ray.recipe.runner import Runner, Selection
    from r1ray.recipe.screen import Screen
    from r1ray.report.recipe_record import load_recipe
    from r1ray.report.recipe_summary import summary

    selection = Selection(only=only, since=since, resume=resume, fresh=fresh)
    code = Runner(read, tasks, Screen(console)).run(selection)
    if (table := summary(load_recipe(read.dir))) is not None:
        console.print(table)
    raise typer.Exit(code)
