"""The option that sends a command to the head of a cluster, and what several commands do with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from r1ray.launch.jobs import Jobs

DASHBOARD = "http://127.0.0.1:8265"

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Run the command on the head of a cluster, given the URL of its dashboard, e.g. "
        f"{DASHBOARD} through `ray dashboard CLUSTER.yaml`. Default: read the run folder on this machine.",
    ),
]


def connect(address: str, run: Path) -> Jobs:
    """The cluster at `address`. Raises ConfigError if `run` is not an absolute path."""
    from r1ray.launch.jobs import Jobs
    from r1ray.launch.submit import refuse_relative

    refuse_relative(run)
    return Jobs.at(address)


def show(address: str, run: Path, words: Sequence[str]) -> None:
    """Run `r1ray WORDS` on the head and print its lines. Raises RemoteFailed with its exit code."""
    with closing(connect(address, run).command(words)) as lines:  # else the command there outlives a Ctrl-C here
        for line in lines:
            typer.echo(line)
