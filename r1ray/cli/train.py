"""`r1ray train`: start a run, resume one, or show what a run would need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli._output import check_output, refuse_together


def register(app: typer.Typer) -> None:
    """Add `train`."""
    app.command()(train)


def train(
    items: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG|KEY=VALUE", help="Overlays over conf/base.yaml, and keys to set."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Resume the run in this folder.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start again; set an existing run in run.dir aside under another name.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which processes would run, where, and their memory; start nothing.")
    ] = False,
    plan_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the dry run to this file.")] = None,
) -> None:
    """Train: `r1ray train conf/tiny.yaml run.steps=20`, or `r1ray train --resume runs/tiny`."""
    from r1ray.preflight.prepare import EMBEDDED_FOLDER, Preparation

    refuse_together(resume=resume, fresh=fresh)
    check_output("--plan-file", plan_file)
    overlays = [item for item in items or [] if "=" not in item]
    overrides = [item for item in items or [] if "=" in item]
    preparation = Preparation.resumed(resume, overlays, overrides) if resume else Preparation.new(overlays, overrides)
    if dry_run or plan_file:
        text = preparation.describe()
        typer.echo(text)
        if plan_file:
            plan_file.write_text(text + "\n", encoding="utf-8")
    if dry_run:
        return

    if preparation.takes_embedded_model and not (resume and EMBEDDED_FOLDER.exists()):
        from r1ray.cli.tiny import build_unless_current

        build_unless_current(EMBEDDED_FOLDER)

    from r1ray.launch import preflight
    from r1ray.launch import train as run_training

    preflight(preparation.loaded.config)
    with preparation.folder(fresh=fresh) as folder:
        code = run_training(preparation.loaded, folder, resume=resume is not None)
    raise typer.Exit(code)
