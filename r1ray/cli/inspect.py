"""`r1ray inspect`: read a run's prompts, responses and rewards."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from r1ray.cli._output import RunArgument, console


def register(app: typer.Typer) -> None:
    """Add `inspect`."""
    app.command()(inspect)


def inspect(
    run: RunArgument,
    step: Annotated[int | None, typer.Option(help="Only groups of this training step.")] = None,
    state: Annotated[
        Literal["leased", "scored", "taken", "trained", "dropped"] | None,
        typer.Option(help="Only groups in this state."),
    ] = None,
    min_reward: Annotated[float | None, typer.Option(help="Only completions with at least this reward.")] = None,
    max_reward: Annotated[float | None, typer.Option(help="Only completions with at most this reward.")] = None,
    text: Annotated[str | None, typer.Option(help="Only groups that contain this text, ignoring case.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of groups to show.")] = 5,
    completions: Annotated[int, typer.Option(min=1, help="Number of completions to show of each group.")] = 4,
) -> None:
    """Show groups of a run: prompt, thinking, answer and rewards.

    Example: r1ray inspect runs/tiny --step 20 --max-reward 0
    """
    from r1ray.run.folder import RunFolder
    from r1ray.run.ledger import find_ledger
    from r1ray.run.transcripts import Filter, found, render

    wanted = Filter(step=step, state=state, min_reward=min_reward, max_reward=max_reward, text=text)
    shown = 0
    for record, group in found(run, wanted, limit=limit):
        console.print(render(record, group, wanted, completions=completions))
        shown += 1
    ledger = find_ledger(RunFolder.open(run))
    if ledger is not None and (age := ledger.age()) is not None:
        console.print(age, soft_wrap=True)
    if not shown:
        console.print("No group of this run matches.")
