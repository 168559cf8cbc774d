"""`r1ray scale` and `r1ray stop`: ask the driver of a run, wherever it is, and wait for its answer."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.markup import escape

from r1ray.cli._output import RunArgument, console
from r1ray.cli._remote import AddressOption, show
from r1ray.errors import ConfigError, DeadlineExceeded
from r1ray.run.folder import RunFolder
from r1ray.run.requests import Answer, ask
from r1ray.run.status import explain, read_run_status

MARGIN_S = 30.0
"""Seconds that a stop may take beyond what the driver has said: Ray ends its processes."""


def register(app: typer.Typer) -> None:
    """Add `scale` and `stop`."""
    app.command()(scale)
    app.command()(stop)


def scale(
    run: RunArgument,
    wanted: Annotated[str, typer.Argument(metavar="rollout=N", help="Number of rollout workers, e.g. rollout=4.")],
    address: AddressOption = None,
) -> None:
    """Change the number of rollout workers of a run while it trains. A worker that leaves finishes or returns its work.

    Example: r1ray scale runs/tiny rollout=4
    """
    role, _, count = wanted.partition("=")
    if role != "rollout" or not count.isdigit() or int(count) < 1:
        raise ConfigError(f"{wanted!r} expected rollout=N with N >= 1; only rollout workers can be scaled")
    if address is not None:
        show(address, run, ["scale", str(run), wanted])
        return
    folder = RunFolder.open(run)
    if folder.holder() is None:
        raise ConfigError(f"no process is running {run}: use `r1ray train --resume {run} rollout.workers={count}`")
    typer.echo(ask(folder, "scale", {role: int(count)}).message)


def stop(
    run: RunArgument,
    now: Annotated[
        bool, typer.Option("--now", help="End without a checkpoint: a resume repeats the steps since the last one.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the driver has ended.")] = True,
    address: AddressOption = None,
) -> None:
    """End a run with a checkpoint, so that a resume repeats nothing."""
    if address is not None:
        flags = [*(["--now"] if now else []), *([] if wait else ["--no-wait"])]
        show(address, run, ["stop", str(run), *flags])
        return
    folder = RunFolder.open(run)
    driver = folder.holder()
    answer = ask(folder, "stop", {"now": now})
    typer.echo(answer.message)
    if not wait:
        return
    _wait(folder, str(driver), answer)
    found = read_run_status(run)
    console.print(found.state)
    for line in explain(found):
        console.print(f"- {escape(line)}", soft_wrap=True)


def _wait(folder: RunFolder, driver: str, answer: Answer) -> None:
    within = (answer.within_s or 0.0) + MARGIN_S
    until = time.monotonic() + within
    while str(folder.holder()) == driver:
        if time.monotonic() > until:
            raise DeadlineExceeded(
                f"the driver still runs {within:.0f} s later ({driver}): see `r1ray status {folder.path}`, or end it "
                f"without a checkpoint with `r1ray stop {folder.path} --now`"
            )
        time.sleep(0.2)
