"""`r1ray verify`: prove from the run folder alone that nothing was lost or trained twice."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from r1ray.cli._output import JsonOption, RunArgument, console, print_json
from r1ray.errors import IntegrityError
from r1ray.runfolder import RunFolder


def register(app: typer.Typer) -> None:
    """Add `verify`."""
    app.command()(verify)


def verify(run: RunArgument, as_json: JsonOption = False) -> None:
    """Check that every prompt is in exactly one state and no group was trained twice or too late; exit code 3 if not."""
    from r1ray.ledger.audit import audit

    RunFolder.open(run)
    report = audit(run)
    if as_json:
        print_json(report.to_json())
    else:
        table = Table("groups", "", "number", box=None, pad_edge=False)
        for row in report.rows:
            table.add_row(row.what, row.detail, str(row.groups))
        console.print(table)
        for violation in report.violations:
            ids = f" ({', '.join(violation.ids)})" if violation.ids else ""
            console.print(f"[red]{violation.kind}[/]: {escape(violation.message + ids)}", soft_wrap=True)
        if report.ok:
            console.print("[green]holds[/]: every group is accounted for")
    if not report.ok:
        raise typer.Exit(IntegrityError.exit_code)
