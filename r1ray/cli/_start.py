"""What the commands that make a run do before they start: check, print the plan, build the embedded model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1ray.cli._output import refuse_together

if TYPE_CHECKING:
    from r1ray.config.rules import SupervisedUse
    from r1ray.evaluation.benchmarks.prepare import Prepared
    from r1ray.preflight.capacity import ClusterNodes
    from r1ray.preflight.placement import Plan
    from r1ray.preflight.prepare import Preparation

ConfigArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG|KEY=VALUE",
        help="Configuration files on top of conf/base.yaml, and single keys, e.g. run.steps=20.",
    ),
]
ResumeOption = Annotated[Path | None, typer.Option(metavar="RUN", help="Resume the run in this folder.")]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start again. An existing run in run.dir is kept under another name.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Run all checks of a start and show the planned processes with their memory; start nothing."
    ),
]


def split(items: list[str] | None) -> tuple[list[str], list[str]]:
    """The configuration files and the KEY=VALUE settings among `items`."""
    return [i for i in items or [] if "=" not in i], [i for i in items or [] if "=" in i]


def check(
    preparation: Preparation,
    *,
    dry_run: bool,
    fresh: bool = False,
    plan_file: Path | None = None,
    benchmarks: Sequence[Prepared] = (),
) -> dict[str, Any]:
    """Do everything before the start of Ray that writes nothing into the run folder; see `check_start`.

    A dry run, or a `plan_file`, gets the plan as text. Unless it is a dry run, the embedded model is built if the run
    needs it and it is missing.
    """
    from r1ray.preflight.fork_servers import start_fork_servers

    cluster = _look_at_cluster(preparation.loaded.config.ray.address)
    if not dry_run:  # before the checks: they import for ten seconds
        start_fork_servers([(preparation.loaded.config, preparation.use)])

    from r1ray.launch.checks import check_start

    def planned(plan: Plan) -> None:
        if not (dry_run or plan_file):
            return
        text = preparation.describe(plan)
        typer.echo(text)
        if plan_file:
            plan_file.write_text(text + "\n", encoding="utf-8")

    found = check_start(preparation, cluster, fresh=fresh, benchmarks=benchmarks, planned=planned)
    if not dry_run:
        _build_embedded_model(preparation)
    return found


def _look_at_cluster(address: str | None) -> ClusterNodes | None:
    """See `look_at`. The other checks import for seconds, so a wrong token or address is named before them."""
    if address is None:
        return None
    from r1ray.launch.ray_session import look_at

    return look_at(address)


def supervised(use: SupervisedUse, items: list[str] | None, resume: Path | None, *, fresh: bool, dry_run: bool) -> None:
    """Start, resume or show a run of `use`. Raises typer.Exit with the exit code, and R1RayError."""
    from r1ray.preflight.prepare import Preparation

    refuse_together(resume=resume, fresh=fresh)
    overlays, overrides = split(items)
    prepare = Preparation.new if resume is None else partial(Preparation.resumed, resume)
    preparation = prepare(overlays, overrides, use)
    data = check(preparation, dry_run=dry_run, fresh=fresh)
    if dry_run:
        return

    from r1ray.launch.supervised import train_supervised

    with preparation.folder(fresh=fresh, data=data) as folder:
        code = train_supervised(preparation.loaded, folder, data, use, resume=resume is not None)
    raise typer.Exit(code)


def _build_embedded_model(preparation: Preparation) -> None:
    """Build the embedded model if it is missing, or if it is outdated and the run is new; say where and why."""
    from r1ray.preflight.prepare import EMBEDDED_FOLDER

    if not preparation.takes_embedded_model or (preparation.existing is not None and EMBEDDED_FOLDER.exists()):
        return
    from learner.tiny.recipe import is_current
    from r1ray.cli.tiny import build

    if is_current(EMBEDDED_FOLDER):
        return
    reason = "is of another version of r1ray" if EMBEDDED_FOLDER.exists() else "does not exist"
    typer.echo(
        f"model.path = tiny is the folder {EMBEDDED_FOLDER.absolute()}, below the working directory, which {reason}: "
        "building it now, about a minute on two cores. A model that was built elsewhere: model.path=FOLDER.",
        err=True,
    )
    build(EMBEDDED_FOLDER, seed=0)
