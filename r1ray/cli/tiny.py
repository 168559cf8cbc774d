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


def build(path: Path, seed: int) -> None:
    """Build the embedded model in `path`, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from learner.tiny.build import build_tiny_model

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"building the embedded model in {path}", total=None)
        build_tiny_model(path, seed=seed, progress=lambda done, total: bar.update(task, completed=done, total=total))
