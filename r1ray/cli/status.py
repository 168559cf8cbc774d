"""`r1ray status`: show the state of a run, once or live, from its folder or from the head of its cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from r1ray.cli._output import JsonOption, RunArgument, console
from r1ray.cli._remote import AddressOption, connect
from r1ray.errors import R1RayError
from r1ray.run.metrics import jsonable
from r1ray.run.status import ENDED, read_run_status
from r1ray.util.formatting import duration, number, printable, share

EVERY_S = 2.0

Found = Generator[dict[str, Any], None, None]
"""Statuses in the form of `RunStatus.to_json`, one or one after the other."""


def register(app: typer.Typer) -> None:
    """Add `status`."""
    app.command()(status)


def status(
    run: RunArgument,
    as_json: JsonOption = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Refresh until the run ends.")] = False,
    address: AddressOption = None,
) -> None:
    """Show what a run is doing, and why if it is stuck."""
    with closing(_local(run, follow) if address is None else _remote(address, run, follow)) as found:
        if as_json:
            for one in found:
                typer.echo(json.dumps(one, ensure_ascii=False, indent=None if follow else 1))
        elif follow and console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                for one in found:
                    live.update(render(one), refresh=True)
        else:
            for one in found:
                console.print(render(one), soft_wrap=True)


def _local(run: Path, follow: bool) -> Found:
    while True:
        found = read_run_status(run)
        yield jsonable(found.to_json())
        if not follow or found.driver is None:
            return
        time.sleep(EVERY_S)


def _remote(address: str, run: Path, follow: bool) -> Found:
    """What the same command prints as JSON on the head."""
    jobs = connect(address, run)
    if follow:
        with closing(jobs.command(["status", str(run), "--json", "--follow"])) as printed:
            for line in printed:
                yield _decode(line)
        return
    lines: list[str] = []
    try:
        lines.extend(jobs.command(["status", str(run), "--json"]))
    except R1RayError:
        typer.echo("\n".join(lines), err=True)
        raise
    yield _decode("\n".join(lines))


def _decode(text: str) -> dict[str, Any]:
    """The status in what the head printed. Raises R1RayError for other text, such as the error of the command."""
    try:
        found = json.loads(text)
    except ValueError as e:
        raise R1RayError(f"the head answered with: {text}") from e
    if not isinstance(found, dict) or "state" not in found:
        raise R1RayError(f"the head answered with: {text}")
    return found


def render(found: Mapping[str, Any]) -> RenderableType:
    """The table and the reasons of a status in the form of `RunStatus.to_json`."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in _rows(found):
        table.add_row(name, Text.from_markup(text) if name == "state" else Text(printable(text)))
    return Group(table, *(Text(f"- {printable(line)}") for line in found["why"]))


def _rows(found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    record, driver = found["status"], found["driver"]
    yield "run", str(found["path"])
    age = f", written {duration(found['age_s'])} ago" if found["age_s"] is not None else ""
    yield "state", f"[bold]{found['state']}[/]{age}"
    yield "driver", f"process {driver['pid']} on {driver['host']}" if driver else "none"
    if "step" in record:
        left = f", {duration(record['eta_s'])} left" if record.get("eta_s") is not None and driver else ""
        yield "step", f"{record['step']} of {record['steps']}, after {duration(record['elapsed_s'])}{left}"
    if record.get("waiting_for") and driver and record["state"] not in ENDED:
        yield "stage", f"waiting for {record['waiting_for']}"
    if "policy_version" in record:
        yield "policy", f"{record['policy_version']}, synced {record.get('synced_version', '–')}"
    if (sync := record.get("last_sync")) is not None:
        yield "last sync", f"policy {sync['version']} in {duration(sync['seconds'])}, {duration(sync['age_s'])} ago"
    yield from _work(record, found["ledger"])
    processes = record if driver else {}  # those of a driver that is gone have gone with it
    for worker in processes.get("workers") or []:
        speed = f"{number(worker['tokens_per_s'])} tokens/s"
        yield worker["id"], f"{worker['state']}, policy {worker['version']}, {speed}"
    for actor in processes.get("actors") or []:
        yield actor["id"], f"{actor['state']}, process {actor['pid'] or '–'}"
    if (row := record.get("evaluation")) is not None:
        yield "evaluation", f"policy {row['step']}, {row['source']}: {share(row['accuracy'])} right"


def _work(record: Mapping[str, Any], ledger: Mapping[str, Any] | None) -> Iterable[tuple[str, str]]:
    """Rates, queue and staleness."""
    rates, metrics = record.get("rates") or {}, record.get("metrics") or {}
    if any(rates.values()):
        sides = (f"{number(rates.get(f'{side}_tokens_per_s'))} {side}" for side in ("rollout", "learner"))
        yield "tokens/s", ", ".join(sides)
    if "staleness/mean" in metrics:
        most = number(metrics.get("staleness/max"))
        yield "staleness", f"{number(metrics['staleness/mean'])} steps on average, at most {most}"
    if ledger is not None:
        yield "queue", f"{ledger['ready']} groups ready, {ledger['leased']} in flight, {ledger['taken']} taken"
        counts = (ledger["trained"], ledger["dropped"], ledger["reissued"])
        yield "groups", "{} trained, {} dropped, {} sampled again".format(*counts)
