"""`r1ray submit`: start or resume a run on a cluster from the operator's machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli import _start
from r1ray.cli._output import console, refuse_together
from r1ray.cli._remote import DASHBOARD


def register(app: typer.Typer) -> None:
    """Add `submit`."""
    app.command()(submit)


def submit(
    items: _start.ConfigArgument = None,
    resume: _start.ResumeOption = None,
    fresh: _start.FreshOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check what does not depend on the cluster; submit nothing.")
    ] = False,
    address: Annotated[
        str,
        typer.Option(metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="Dashboard of the cluster, or its tunnel."),
    ] = DASHBOARD,
) -> None:
    """Start `r1ray train` on the head of a cluster, in a copy of the working directory.

    Shows what the driver prints until its checks are passed. The run continues without this machine.

    Example: r1ray submit my.yaml clusters/ray run.dir=/shared/runs/my model.path=/shared/models/base
    """
    from r1ray.launch.submit import new_run, resumed_run

    refuse_together(resume=resume, fresh=fresh)
    overlays, overrides = _start.split(items)
    order = resumed_run(resume, overlays, overrides) if resume else new_run(overlays, overrides, fresh=fresh)
    if dry_run:
        console.print(f"r1ray {shlex.join(order.words)}", markup=False, soft_wrap=True)
        return

    from r1ray.launch.jobs import Jobs
    from r1ray.launch.submit import submit as start
    from r1ray.launch.submit import until_started

    jobs = Jobs.at(address)
    job = start(order, jobs, Path.cwd())
    typer.echo(f"run     {order.run}\njob     {job}")
    for line in until_started(jobs, job):
        typer.echo(f"        {line}")
    there = f"{shlex.quote(order.run)} --address {address}"
    typer.echo(
        f"follow  r1ray status {there} --follow\nlogs    r1ray logs {there} --follow\nstop    r1ray stop {there}"
    )
