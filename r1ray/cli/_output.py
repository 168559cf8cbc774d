"""Options, checks and printing that several commands share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from r1ray.errors import ConfigError
from r1ray.run.metrics import jsonable

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder, e.g. runs/tiny.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

console = Console(highlight=False)


def refuse_together(**options: object) -> None:
    """Raise ConfigError if two of the options are given (neither None nor False): they exclude each other."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, False)]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} exclude each other: give one of them")


def check_output(option: str, path: Path | None) -> None:
    """Raise ConfigError if no file can be written at `path`. None: no file was requested."""
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder: give a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: {path.parent} is not a folder: make it, or give another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{option} {path} cannot be written by this user: give another file")


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output, and nothing else."""
    typer.echo(json.dumps(jsonable(value), ensure_ascii=False, indent=1))
