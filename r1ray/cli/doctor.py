"""`r1ray doctor`: check this machine, a configuration, and with `--cluster` every node of a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from r1ray.cli import _start
from r1ray.cli._output import JsonOption, console, print_json

if TYPE_CHECKING:
    from r1ray.preflight.findings import Finding

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
THIS = "this machine"


def register(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command()(doctor)


def doctor(
    items: _start.ConfigArgument = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Check every node of the running Ray cluster at ray.address (default: auto)."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check machine and installation; with a configuration also its model, data and run folder.

    Exit code: 0 without errors, 1 with errors, 2 if the configuration is wrong or the cluster cannot be joined.
    Example: r1ray doctor, or r1ray doctor --cluster my.yaml clusters/ray
    """
    from r1ray.preflight.prepare import Preparation

    overlays, overrides = _start.split(items)
    preparation = Preparation.new(overlays, overrides) if items else None
    pairs: list[dict[str, object]] = []
    if cluster:
        from r1ray.launch.ray_session import look_at

        address = (preparation.loaded.config.ray.address if preparation is not None else None) or "auto"
        seen = look_at(address)  # before the import of the checks, which takes seconds

        from r1ray.launch.doctor import examine_cluster

        report = examine_cluster(address, seen, preparation)
        findings, pairs = report.findings, [asdict(pair) for pair in report.pairs]
    else:
        from r1ray.preflight.doctor import examine

        findings = examine(preparation)
    bad = [finding for finding in findings if finding.verdict == "error"]
    if as_json:
        print_json({"findings": [asdict(f) for f in findings], "pairs": pairs, "errors": len(bad)})
    else:
        _print(findings, "cluster" if cluster else THIS)
    if bad:
        raise typer.Exit(1)


def _print(findings: Sequence[Finding], title: str) -> None:
    """Findings by node, each problem with what it means and how to fix it, and a last line with their numbers."""
    for node in dict.fromkeys(f.node for f in findings):
        console.print(f"[bold]{escape(node or title)}[/]")
        for f in (f for f in findings if f.node == node):
            console.print(
                f"  [{COLOURS[f.verdict]}]{f.verdict:<8}[/]{escape(f'{f.what:<18} {f.detail}')}", soft_wrap=True
            )
            if f.meaning:
                console.print(escape(f"          means: {f.meaning}"), soft_wrap=True)
                console.print(escape(f"          fix:   {f.fix}"), soft_wrap=True)
    numbers = {verdict: sum(f.verdict == verdict for f in findings) for verdict in COLOURS}
    console.print(f"{numbers['ok']} ok, {numbers['warning']} warnings, {numbers['error']} errors")
