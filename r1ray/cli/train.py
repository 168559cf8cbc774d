"""`r1ray train`: start a run of reinforcement learning, resume one, or show what a run would need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli import _start
from r1ray.cli._output import check_output, refuse_together


def register(app: typer.Typer) -> None:
    """Add `train`."""
    app.command()(train)


def train(
    items: _start.ConfigArgument = None,
    resume: _start.ResumeOption = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Train on the groups of this recorded run instead of new ones (the key replay.run)."
        ),
    ] = None,
    fresh: _start.FreshOption = False,
    dry_run: _start.DryRunOption = False,
    plan_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write what --dry-run shows to this file.")
    ] = None,
) -> None:
    """Train a model by reinforcement learning.

    Example: r1ray train conf/tiny.yaml run.steps=20, or r1ray train --resume runs/tiny, or
    r1ray train conf/tiny.yaml algorithm.loss=cispo run.dir=runs/cispo --replay runs/tiny
    """
    from r1ray.preflight.prepare import Preparation

    refuse_together(resume=resume, fresh=fresh)
    refuse_together(resume=resume, replay=replay)
    check_output("--plan-file", plan_file)
    overlays, overrides = _start.split(items)
    if replay is not None:
        overrides = [*overrides, f"replay.run={json.dumps(str(replay))}"]
    preparation = Preparation.resumed(resume, overlays, overrides) if resume else Preparation.new(overlays, overrides)
    _start.check(preparation, dry_run=dry_run, fresh=fresh, plan_file=plan_file)
    if dry_run:
        return

    from r1ray.launch import train as run_training

    with preparation.folder(fresh=fresh) as folder:
        code = run_training(preparation.loaded, folder, resume=resume is not None)
    raise typer.Exit(code)
