"""`r1ray tiny`: build the embedded base model."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from learner.tiny.flavors import FlavorName
    from learner.tiny.recipe import Size


class _Size(enum.StrEnum):
    base = "base"
    student = "student"


class _About(enum.StrEnum):
    chats = "chats"
    helpful = "helpful"
    safe = "safe"


class _Flavor(enum.StrEnum):
    plain = "plain"
    bilingual = "bilingual"


def register(app: typer.Typer) -> None:
    """Add `tiny` and `tiny-data`."""
    app.command()(tiny)
    app.command()(tiny_data)


def tiny(
    path: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write the model into.")],
    seed: Annotated[int, typer.Option(help="Random seed of the weights and the corpus.")] = 0,
    size: Annotated[_Size, typer.Option(help="base: 687k parameters; student: 130k.")] = _Size.base,
    flavor: Annotated[
        _Flavor,
        typer.Option(
            help="Pretraining corpus. plain: bus problems; bilingual: bus problems in two languages, and small requests."
        ),
    ] = _Flavor.plain,
) -> None:
    """Pretrain the embedded base model: about a minute on two cores, no downloads. See docs/tiny.md."""
    build(path, seed, size=size.value, flavor=flavor.value)


def tiny_data(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL file to write.")],
    about: Annotated[
        _About,
        typer.Option(help="chats: conversations for `r1ray sft`; helpful, safe: preferences for `r1ray reward-model`."),
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 600,
    seed: Annotated[int, typer.Option(help="Random seed of the problems and the answers.")] = 0,
) -> None:
    """Write synthetic conversations or preferences for the later stages of the tiny recipe. See docs/tiny.md."""
    from learner.tiny.requests import write_requests

    write_requests(path, about.value, count=count, seed=seed)
    typer.echo(f"{count} rows about {about.value} in {path}")


def build(path: Path, seed: int, *, size: Size = "base", flavor: FlavorName = "plain") -> None:
    """Build the embedded model in `path`, with a progress bar on standard error, or lines if that is not a terminal."""
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

        report = build_tiny_model(path, seed=seed, size=size, flavor=flavor, progress=show)
    Console(stderr=True, highlight=False).print(
        f"built {path} in {report.seconds:.0f} s: {report.parameters:,} parameters, "
        f"right in {report.skill:.0%} where it works step by step",
        soft_wrap=True,
    )
