"""`r1ray tiny`: build the embedded base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `tiny`."""
    app.command()(tiny)


def tiny(
    path: Annotated[Path, typer.Argument(help="Folder to write the model into.")],
    seed: Annotated[int, typer.Option(help="Of the weights and the corpus.")] = 0,
) -> None:
    """Pretrain the embedded 687k-parameter base model; about two minutes on one core, no downloads."""
    build(path, seed)


def build_unless_current(path: Path) -> None:
    """Build the embedded model with seed 0 where `path` does not hold one of this version."""
    from learner.tiny.recipe import is_current

    if not is_current(path):
        build(path, seed=0)


def build(path: Path, seed: int) -> None:
    """Build the embedded model in `path`, with a progress bar on standard error, or a line now and then where it is a file."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("loading torch", total=None)

        from learner.tiny.build import build_tiny_model

        def show(done: int, total: int, loss: float) -> None:
            what = f"building the embedded model in {path} (loss {loss:.2f})"
            bar.update(task, completed=done, total=total, description=what)
            if not console.is_terminal and done % 100 == 0:
                console.print(f"{what}: step {done} of {total}", soft_wrap=True)

        report = build_tiny_model(path, seed=seed, progress=show)
    Console(stderr=True, highlight=False).print(
        f"built {path} in {report.seconds:.0f} s: {report.parameters:,} parameters, "
        f"right in {report.skill:.0%} where it works step by step",
        soft_wrap=True,
    )
