"""`r1ray report`: write the HTML report of a run or a recipe, or print its figures as JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from r1ray.cli._output import JsonOption, RunArgument, print_json


def register(app: typer.Typer) -> None:
    """Add `report`."""
    app.command()(report)


def report(
    run: RunArgument,
    as_json: JsonOption = False,
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--word",
            help="Reflective word to count in responses, e.g. wait; may be repeated. Default: a built-in list.",
        ),
    ] = None,
) -> None:
    """Write RUN/report.html, one self-contained page: accuracy, length, rewards, speed, sampled responses.

    If RUN is the folder of a recipe, the page shows all of its stages.
    """
    from r1ray.report import build_report
    from r1ray.report.figures import figures
    from r1ray.report.recipe_record import is_recipe, recipe_figures
    from r1ray.util.responses import REFLECTIVE_WORDS

    if as_json:
        print_json(recipe_figures(run) if is_recipe(run) else figures(run))
    else:
        typer.echo(build_report(run, words=words or REFLECTIVE_WORDS))
