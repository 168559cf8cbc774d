"""`r1ray reward-model train`: a reward model from preferences."""

from __future__ import annotations

import contextlib
import enum
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from r1ray.cli._output import print_json
from r1ray.errors import ConfigError

if TYPE_CHECKING:
    from r1ray.rewards.learned.conversation import Part


class _Kind(enum.StrEnum):
    pairwise = "pairwise"
    pointwise = "pointwise"


def register(app: typer.Typer) -> None:
    """Add `reward-model`."""
    group = typer.Typer(help="Train reward models.", no_args_is_help=True)
    group.callback()(_group)
    group.command()(train)
    app.add_typer(group, name="reward-model")


def _group() -> None:
    """Train reward models."""


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="JSON lines; see docs/rewards.md.")],
    model: Annotated[Path, typer.Option(help="Folder of the language model to begin with.")],
    out: Annotated[Path, typer.Option(help="Folder to write the reward model into.")],
    kind: Annotated[_Kind, typer.Option(help="pairwise: which is better (helpful); pointwise: is it safe.")],
    judge: Annotated[
        str | None, typer.Option(help="summary or response; the first for pairs, the second for safety unless given.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one optimiser step.")] = 256,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 6e-6,
    max_length: Annotated[int, typer.Option(min=1, help="Tokens of a conversation; longer rows are left out.")] = 8192,
    micro_batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one forward pass.")] = 16384,
    held_out: Annotated[float, typer.Option(help="Share of the prompts that the report is about.")] = 0.05,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Compute type; bfloat16 needs ZeRO stage 1 to 3.")
    ] = "float32",
    ranks: Annotated[int, typer.Option(min=1, help="Processes that train together, one device each.")] = 1,
    zero_stage: Annotated[int, typer.Option(min=0, max=3, help="ZeRO stage: what is divided over the ranks.")] = 0,
    num_gpus: Annotated[float | None, typer.Option(min=0, help="Of each rank; 1 where there are GPUs.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, auto or host:port; a local one unless given.")
    ] = None,
    deadline_s: Annotated[
        float | None, typer.Option(min=1, help="Seconds for the start, a step, the report, the writing; see deadlines.")
    ] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(min=1, help="Save every so many steps, 20 unless given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint beside --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of the new head, the order and what is held out.")] = 0,
) -> None:
    """Train a reward model and print its report: held-out accuracy, and how much of the score is length."""
    part = _checked(kind, judge, model, None if resume else out)

    from learner.preference.train import Settings
    from r1ray.launch.reward_model import placement, train_reward_model
    from r1ray.util.machine import this_machine

    settings = Settings(
        kind=kind.value,
        judge=part,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        max_length=max_length,
        micro_batch_tokens=micro_batch_tokens,
        held_out=held_out,
        dtype=dtype,
        seed=seed,
        ranks=ranks,
        zero_stage=zero_stage,
    )
    gpus = float(this_machine().gpus > 0) if num_gpus is None else num_gpus
    config = placement(ranks, gpus, ray_address, deadline_s, checkpoint_steps)
    with _shown() as show:
        report = train_reward_model(
            data, base=model, out=out, settings=settings, config=config, resume=resume, progress=show
        )
    print_json(report)


def _checked(kind: _Kind, judge: str | None, model: Path, new: Path | None) -> Part:
    """What is judged. Raises ConfigError for options that cannot be, before anything heavy is loaded.

    `new` is a folder that must not be there yet.
    """
    part = judge or ("summary" if kind is _Kind.pairwise else "response")
    if part not in ("summary", "response"):
        raise ConfigError(f"--judge {judge} is unknown: summary or response")
    if not (model / "config.json").is_file():
        raise ConfigError(f"--model {model} is no model folder: it has no config.json")
    if new is not None and new.exists():
        raise ConfigError(f"--out {new} exists already: give a new folder")
    return "summary" if part == "summary" else "response"


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[int, int, float], None]]:
    """A bar on standard error; standard output, to which DeepSpeed logs, is the report's."""
    from rich.console import Console
    from rich.progress import Progress

    with contextlib.redirect_stdout(sys.stderr), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training")

        def show(done: int, total: int, loss: float) -> None:
            bar.update(task, completed=done, total=total, description=f"training (loss {loss:.3f})")

        yield show
