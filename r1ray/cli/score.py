"""`r1ray score`: score responses in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from r1ray.cli._output import check_output, console
from r1ray.errors import ConfigError

if TYPE_CHECKING:
    from r1ray.config.schema import RewardConfig
    from r1ray.rewards.offline import Summary


def register(app: typer.Typer) -> None:
    """Add `score`."""
    app.command()(score)


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines with `response`, and `answer` or `tests`.")],
    reward: Annotated[
        list[str],
        typer.Option(
            help="math, choice, exact, numeric, code, format, language, ..., or module:function. May be repeated."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write each line with its scores; an existing file is continued."),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="REWARD.KEY=VALUE", help="A parameter of a reward, e.g. code.partial=true."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processors to use (default: all).")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Time limit of one verification in seconds.")] = 10.0,
    sandbox: Annotated[Literal["bubblewrap", "none"], typer.Option(help="Isolation of programs.")] = "bubblewrap",
) -> None:
    """Score the responses in a file with rewards, without a model.

    Example: r1ray score answers.jsonl --reward math --out scored.jsonl
    """
    from rich.progress import Progress

    from r1ray.config.schema import RewardWorkerConfig
    from r1ray.rewards.offline import score_file
    from r1ray.rewards.scorer import Scorer

    if not file.is_file():
        raise ConfigError(f"{file} does not exist or is not a file")
    check_output("--out", out)
    worker = RewardWorkerConfig(timeout_s=timeout, sandbox=sandbox)
    rewards = reward_configs(reward, param or [])
    how = {
        "rewards": [{"name": r.name, "weight": r.weight, "params": r.params} for r in rewards],
        "timeout_s": timeout,
        "sandbox": sandbox,
    }
    scorer = Scorer(rewards, worker, processors=workers)
    try:
        scorer.check()
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(f"scoring {file.name}", total=file.stat().st_size)
            summary = score_file(file, out, scorer, lambda size: bar.advance(task, size), how)
    finally:
        scorer.close()
    _print(summary)


def reward_configs(names: list[str], params: list[str]) -> list[RewardConfig]:
    """The rewards as in a configuration; the name of a verifier, e.g. `math`, stands for accuracy with it.

    Raises ConfigError for a parameter that is not REWARD.KEY=VALUE with one of the rewards.
    """
    import yaml

    from r1ray.config.schema import RewardConfig
    from r1ray.rewards.answers.accuracy import VERIFIERS

    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for item in params:
        key, found, value = item.partition("=")
        name, _, parameter = key.rpartition(".")
        if not found or name not in given:
            raise ConfigError(f"--param {item}: expected REWARD.KEY=VALUE with one of the rewards {', '.join(names)}")
        given[name][parameter] = yaml.safe_load(value)
    verifiers = [name for name in given if name in VERIFIERS]
    return [
        RewardConfig(
            name=name if name not in VERIFIERS else "accuracy" if len(verifiers) == 1 else f"accuracy/{name}",
            params={"verifier": name, **own} if name in VERIFIERS else own,
        )
        for name, own in given.items()
    ]


def _print(summary: Summary) -> None:
    table = Table("", "lines", "mean", box=None, pad_edge=False)
    judged = summary.lines - summary.errors.total()
    table.add_row("reward", f"{judged:,}", f"{summary.mean:.4f}")
    for name, (total, count) in summary.parts.items():
        table.add_row(f"  {name}", f"{count:,}", f"{total / count:.4f}")
    for name, count in summary.errors.most_common():
        table.add_row(f"[red]{name}[/]", f"{count:,}", "")
    console.print(table)
    if summary.resumed:
        console.print(f"{summary.resumed:,} of {summary.lines:,} lines were scored by an earlier run")
    times = summary.times
    if times.counts:
        console.print(f"time of one: p50 {1000 * times.quantile(0.5):.3g} ms, p99 {1000 * times.quantile(0.99):.3g} ms")
