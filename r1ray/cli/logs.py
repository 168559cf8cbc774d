"""`r1ray logs`: show and follow the logs of a run's processes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated

import typer

from r1ray.cli._output import RunArgument
from r1ray.cli._remote import AddressOption, show
from r1ray.run.folder import RunFolder
from r1ray.util.formatting import printable

LOOK_EVERY_S = 0.5


def register(app: typer.Typer) -> None:
    """Add `logs`."""
    app.command()(logs)


def logs(
    run: RunArgument,
    actor: Annotated[
        str | None,
        typer.Argument(
            metavar="PROCESS",
            help="Only this process: driver, queue, rollout-0, reward-0, learner-0, ray, ... Default: all.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until the run ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Number of last lines to show of each log.")] = 20,
    address: AddressOption = None,
) -> None:
    """Show the last lines of the logs in RUN/logs, each with the name of its process."""
    from r1ray.run.logs import LogReader

    if address is not None:
        which = [actor] if actor else []
        show(address, run, ["logs", str(run), *which, f"--lines={lines}", *(["--follow"] if follow else [])])
        return
    folder = RunFolder.open(run)
    reader = LogReader(folder, actor, lines)
    while True:
        ended = not follow or folder.holder() is None  # before the last look, which then sees all
        _print(reader.look(), named=actor is None)
        if ended:
            _print(reader.rest(), named=actor is None)
            return
        time.sleep(LOOK_EVERY_S)


def _print(lines: Iterable[tuple[str, str]], *, named: bool) -> None:
    for name, line in lines:
        typer.echo(f"{name:>10} | {printable(line)}" if named else printable(line))
