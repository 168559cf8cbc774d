"""`r1ray report`: the page of a run, or its figures as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `report`."""
    app.command()(report)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, of a run that is finished or not.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures instead of writing the page.")] = False,
    words: Annotated[
        list[str] | None, typer.Option("--word", help="Count this reflective word; may be given several times.")
    ] = None,
) -> None:
    """Write RUN/report.html: accuracy, length, rewards, speed, responses to read, in one self-contained page."""
    from r1ray.metrics import jsonable
    from r1ray.report.build import build_report
    from r1ray.report.figures import figures
    from r1ray.responses import REFLECTIVE_WORDS

    if as_json:
        typer.echo(json.dumps(jsonable(figures(run)), indent=1))
    else:
        typer.echo(build_report(run, words=words or REFLECTIVE_WORDS))
