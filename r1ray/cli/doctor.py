"""`r1ray doctor`: check the installation and the machine."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.markup import escape
from rich.table import Table

from r1ray.cli._output import JsonOption, console, print_json

COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command()(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Check packages, memory, GPUs and the sandbox of this machine; exit code 1 if something is wrong."""
    from r1ray.preflight.doctor import examine
    from r1ray.util.machine import this_machine

    findings = examine(this_machine())
    if as_json:
        print_json({"findings": [asdict(f) for f in findings]})
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for f in findings:
            colour = COLOURS[f.verdict]
            table.add_row(f"[{colour}]{f.verdict}[/]", escape(f.what), escape(f.detail), escape(f.fix))
        console.print(table)
    if any(f.verdict == "wrong" for f in findings):
        raise typer.Exit(1)
