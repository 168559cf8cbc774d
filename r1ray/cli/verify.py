"""`r1ray verify`: prove from a run folder that no group was lost or trained twice; check the claims of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from r1ray.cli._output import JsonOption, RunArgument, console, print_json
from r1ray.errors import IntegrityError
from r1ray.ledger.lengths import LengthQuartile
from r1ray.run.folder import RunFolder


def register(app: typer.Typer) -> None:
    """Add `verify`."""
    app.command()(verify)


def verify(run: RunArgument, as_json: JsonOption = False) -> None:
    """Check that no group of a run was lost, trained twice or trained when it was too stale; exit code 3 if one was.

    For the folder of a recipe: check that its models reach the accuracy that the recipe claims.
    """
    from r1ray.run.audit import audit_run
    from r1ray.run.policy import RECIPE

    if (run / RECIPE).exists():
        _verify_claims(run, as_json)
        return
    RunFolder.open(run)
    report = audit_run(run)
    if as_json:
        print_json(report.to_json())
    else:
        table = Table("groups", "", "number", box=None, pad_edge=False)
        for row in report.rows:
            table.add_row(row.what, row.detail, str(row.groups))
        console.print(table)
        if report.lengths:
            console.print(_by_length(report.lengths))
        for violation in report.violations:
            ids = f" ({', '.join(violation.ids)})" if violation.ids else ""
            console.print(f"[red]{violation.kind}[/]: {escape(violation.message + ids)}", soft_wrap=True)
        if report.read_from is not None:
            console.print(escape(report.read_from), soft_wrap=True)
        if report.ok:
            console.print("[green]holds[/]: every group is accounted for")
    if not report.ok:
        raise typer.Exit(IntegrityError.exit_code)


def _by_length(quartiles: Sequence[LengthQuartile]) -> Table:
    table = Table("longest completion", "leased", "trained", "too old", "no signal", "", box=None)
    for q in quartiles:
        counts = (str(n) for n in (q.leased, q.trained, q.stale, q.no_signal))
        table.add_row(f"{q.shortest} to {q.longest}", *counts, f"{q.trained_share:.0%} trained")
    return table


def _verify_claims(folder: Path, as_json: bool) -> None:
    from r1ray.report.recipe_record import load_recipe, verdicts

    found = verdicts(load_recipe(folder))
    if as_json:
        print_json({"claims": {v.name: {"holds": v.holds, "text": v.text} for v in found}})
    else:
        for v in found:
            word = "[green]holds[/]" if v.holds else "[red]does not hold[/]"
            console.print(f"{word}: {v.name}: {escape(v.text)}", soft_wrap=True)
        if not found:
            console.print("This recipe claims nothing; see `claims` in docs/recipe.md.")
    if not all(v.holds for v in found):
        raise typer.Exit(IntegrityError.exit_code)
