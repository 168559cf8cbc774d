"""What several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from r1ray.metrics import jsonable

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder, e.g. runs/tiny.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

console = Console(highlight=False)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output, and nothing else."""
    typer.echo(json.dumps(jsonable(value), ensure_ascii=False, indent=1))
