"""`r1ray status` and `r1ray scale`: show the state of a run, and change its number of workers."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from r1ray.cli._output import JsonOption, RunArgument, console, print_json
from r1ray.errors import ConfigError
from r1ray.run.folder import RunFolder
from r1ray.run.status import RunStatus, explain, read_run_status
from r1ray.util.formatting import duration, number, share


def register(app: typer.Typer) -> None:
    """Add `status` and `scale`."""
    app.command()(status)
    app.command()(scale)


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show what a run is doing, and why if it is stuck."""
    found = read_run_status(run)
    if as_json:
        print_json(found.to_json())
        return
    console.print(_table(found))
    for line in explain(found):
        console.print(f"- {escape(line)}", soft_wrap=True)


def _table(found: RunStatus) -> Table:
    told, table = found.record, Table(box=None, show_header=False, pad_edge=False)
    age = f", told {duration(found.age_s)} ago" if found.age_s is not None else ""
    table.add_row("run", escape(str(found.path)))
    table.add_row("state", f"[bold]{found.state}[/]{age}")
    table.add_row("driver", escape(str(found.driver)) if found.driver else "none")
    if "step" in told:
        eta = f", {duration(told['eta_s'])} left" if told.get("eta_s") is not None and found.driver else ""
        table.add_row("step", f"{told['step']} of {told['steps']}, after {duration(told['elapsed_s'])}{eta}")
    if "policy_version" in told:
        table.add_row("policy", f"{told['policy_version']}, synced {told.get('synced_version', '–')}")
    for worker in told.get("workers") or []:
        speed = f"{number(worker['tokens_per_s'])} tokens/s"
        table.add_row(worker["id"], f"{worker['state']}, policy {worker['version']}, {speed}")
    if (row := told.get("evaluation")) is not None:
        table.add_row("evaluation", f"policy {row['step']}, {row['source']}: {share(row['accuracy'])} right")
    if (ledger := found.ledger) is not None:
        table.add_row("groups", f"{ledger.trained} trained, {ledger.dropped} dropped, {ledger.reissued} sampled again")
    return table


def scale(
    run: RunArgument,
    wanted: Annotated[str, typer.Argument(metavar="rollout=N", help="Wanted number of rollout workers.")],
) -> None:
    """Change the number of rollout workers of a run while it trains.

    Example: r1ray scale runs/tiny rollout=4
    """
    role, _, count = wanted.partition("=")
    if role != "rollout" or not count.isdigit() or int(count) < 1:
        raise ConfigError(f"{wanted!r} expected rollout=N with N >= 1; only rollout workers can be scaled")
    folder = RunFolder.open(run)
    driver = folder.holder()
    if driver is None:
        raise ConfigError(f"no process is running {run}: use `r1ray train --resume {run} rollout.workers={count}`")
    folder.request_scale(role, int(count))
    console.print(f"asked {escape(str(driver))} at {time.strftime('%H:%M:%S')} for {count} rollout workers")
