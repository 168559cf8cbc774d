"""`r1ray trace`: the timeline of one group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from r1ray.cli._output import RunArgument, check_output, console


def register(app: typer.Typer) -> None:
    """Add `trace`."""
    app.command()(trace)


def trace(
    run: RunArgument,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="A group, e.g. 12-1, or a prompt index, e.g. 12.")],
    out: Annotated[Path | None, typer.Option(help="Also write a trace for Perfetto or chrome://tracing.")] = None,
) -> None:
    """Show when a group was leased, generated, scored, queued and trained.

    Example: r1ray trace runs/tiny 12 --out trace.json
    """
    import json

    from r1ray.run.trace import chrome_trace, read_trace, timeline
    from r1ray.util.files import write_atomic

    check_output("--out", out)
    found = read_trace(run, group)
    for line in timeline(found):
        console.print(escape(line), soft_wrap=True)
    if out is not None:
        write_atomic(out, json.dumps(chrome_trace(found)).encode())
        console.print(f"Wrote {escape(str(out))}: open it at ui.perfetto.dev or chrome://tracing", soft_wrap=True)
