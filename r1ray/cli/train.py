"""`r1ray train`: start a run of reinforcement learning, resume one, or show what a run would need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli import _start
from r1ray.cli._output import check_output, refuse_together
from r1ray.errors import ConfigError

PROFILED_STEPS = 3


def register(app: typer.Typer) -> None:
    """Add `train`."""
    app.command()(train)


def train(
    items: _start.ConfigArgument = None,
    resume: _start.ResumeOption = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Profile 3 steps after the first one, or as many as a number behind it says: `--profile 5`. "
            "Traces and a table of the step's time go to RUN/profile.",
        ),
    ] = False,
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
    items, profiled = _profiled_steps(items or [], profile)
    overlays, overrides = _start.split(items)
    if replay is not None:
        overrides = [*overrides, f"replay.run={json.dumps(str(replay))}"]
    preparation = Preparation.resumed(resume, overlays, overrides) if resume else Preparation.new(overlays, overrides)
    _start.check(preparation, dry_run=dry_run, fresh=fresh, plan_file=plan_file)
    if dry_run:
        return

    from r1ray.launch.training import train as run_training

    with preparation.folder(fresh=fresh) as folder:
        code = run_training(preparation.loaded, folder, resume=resume is not None, profile=profiled)
    raise typer.Exit(code)


def _profiled_steps(items: list[str], profile: bool) -> tuple[list[str], int | None]:
    """The other items, and the number of steps to profile; None: none.

    typer's options have no optional value, so that the number of `--profile 5` comes as an item. No configuration file
    has such a name.
    """
    numbers = [item for item in items if item.isdecimal()]
    if not profile:
        return items, None
    if len(numbers) > 1 or "0" in numbers:
        raise ConfigError(f"--profile {' '.join(numbers)}: expected one number of steps, at least 1")
    return [item for item in items if item not in numbers], int(numbers[0]) if numbers else PROFILED_STEPS
