"""`r1ray inspect`: read what the model wrote, and what it earned."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from r1ray.cli._output import RunArgument, console


def register(app: typer.Typer) -> None:
    """Add `inspect`."""
    app.command()(inspect)


def inspect(
    run: RunArgument,
    step: Annotated[int | None, typer.Option(help="Groups bound to this training step.")] = None,
    state: Annotated[
        Literal["leased", "scored", "taken", "trained", "dropped"] | None, typer.Option(help="Groups in this state.")
    ] = None,
    min_reward: Annotated[float | None, typer.Option(help="Completions that earned at least this.")] = None,
    max_reward: Annotated[float | None, typer.Option(help="Completions that earned at most this.")] = None,
    text: Annotated[str | None, typer.Option(help="Groups that say this, whatever the case.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Groups to show.")] = 5,
    completions: Annotated[int, typer.Option(min=1, help="Completions of each to show.")] = 4,
) -> None:
    """Show groups of a run: prompt, thinking, answer and rewards."""
    from r1ray.run.transcripts import Filter, found, render

    wanted = Filter(step=step, state=state, min_reward=min_reward, max_reward=max_reward, text=text)
    shown = 0
    for record, group in found(run, wanted, limit=limit):
        console.print(render(record, group, wanted, completions=completions))
        shown += 1
    if not shown:
        console.print("No group of this run fits.")
