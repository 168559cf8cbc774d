"""`r1ray data`: check data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add `data check`."""
    group = typer.Typer(help="Check data files.", no_args_is_help=True)
    group.command()(check)
    group.callback()(lambda: None)  # keeps `check` a subcommand while it is the only one
    app.add_typer(group, name="data")


def check(
    file: Annotated[Path, typer.Argument(help="A JSONL or .parquet file.")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=COLUMN", help="Column of a field, as `columns` in the configuration; may be repeated."
        ),
    ] = None,
    answer_after: Annotated[
        str | None,
        typer.Option(
            metavar="MARK", help="Use only the answer behind this mark, as `params.answer_after` in the configuration."
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="VERIFIER", help="Check that this verifier accepts the answers: math, choice, code, ..."),
    ] = None,
) -> None:
    """Report the faulty rows of a file of prompts; exit code 1 if there are any.

    Example: r1ray data check train.jsonl --column prompt=question --answer-after '####' --reward
    numeric
    """
    from r1ray.data.files import FileParams
    from r1ray.errors import ConfigError
    from r1ray.rewards.answers.accuracy import VERIFIERS
    from r1ray.rewards.data_check import check_file

    if reward is not None and reward not in VERIFIERS:
        raise ConfigError(f"--reward: expected one of {', '.join(VERIFIERS)}, got {reward!r}")
    columns = {}
    for item in column or []:
        field, equals, name = item.partition("=")
        if not (field and equals and name):
            raise ConfigError(f"--column: expected FIELD=COLUMN, e.g. prompt=question, got {item!r}")
        columns[field] = name
    rows = faults = 0
    verifier = None if reward is None else VERIFIERS[reward]()
    for row in check_file(file, columns, FileParams(answer_after=answer_after), verifier):
        rows += 1
        if row.fault is not None:
            faults += 1
            typer.echo(f"{file}:{row.number}: {row.fault}")
    typer.echo(f"{rows:,} rows, {faults:,} faulty", err=True)
    if rows == 0:
        raise ConfigError(f"{file} has no rows")
    if faults:
        raise typer.Exit(1)
