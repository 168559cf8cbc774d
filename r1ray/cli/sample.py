"""`r1ray sample`: k samples of every prompt, and of these a dataset for supervised training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1ray.cli._output import console, refuse_together
from r1ray.errors import DataError
from r1ray.util.formatting import share

if TYPE_CHECKING:
    from r1ray.config.schema import Config
    from r1ray.preflight.prepare import Preparation
    from r1ray.run.folder import RunFolder


def register(app: typer.Typer) -> None:
    """Add `sample`."""
    app.command()(sample)


def sample(
    items: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG|KEY=VALUE", help="Overlays over conf/base.yaml, and keys."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder.")] = None,
    only_curate: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Make the dataset of this run anew, e.g. with other filters.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Keep a run that is in run.dir under another name.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, where, and in how much memory.")
    ] = False,
) -> None:
    """Sample and curate: `r1ray sample CONFIG model.path=...`, or `--resume RUN`. See docs/curation.md."""
    from r1ray.curation.dataset import check_inputs
    from r1ray.preflight.prepare import Preparation

    refuse_together(resume=resume, only_curate=only_curate, fresh=fresh)
    overlays = [item for item in items or [] if "=" not in item]
    overrides = [item for item in items or [] if "=" in item]
    if begun := resume or only_curate:
        preparation = Preparation.resumed(begun, overlays, overrides, "sample")
    else:
        preparation = Preparation.new(overlays, overrides, "sample")
    config = preparation.loaded.config
    if dry_run:
        typer.echo(preparation.describe())
        return
    check_inputs(config)
    if only_curate:
        with preparation.reopened() as folder:
            _curate(folder.path, config)
    else:
        _sample(preparation, fresh=fresh)


def _sample(preparation: Preparation, *, fresh: bool) -> None:
    from r1ray.cli.tiny import build_unless_current
    from r1ray.curation.dataset import is_sampled
    from r1ray.launch.sampling import preflight
    from r1ray.preflight.prepare import EMBEDDED_FOLDER

    config = preparation.loaded.config
    if preparation.takes_embedded_model and preparation.existing is None:
        build_unless_current(EMBEDDED_FOLDER)
    preflight(config)
    with preparation.folder(fresh=fresh) as folder:
        if is_sampled(folder.path) or _run(preparation, folder):
            _curate(folder.path, config)
        else:
            console.print(f"Stopped. Continue with `r1ray sample --resume {folder.path}`.", soft_wrap=True)


def _run(preparation: Preparation, folder: RunFolder) -> bool:
    """Sample what is missing; whether that is everything."""
    from r1ray.curation.dataset import SAMPLES, mark_sampled
    from r1ray.launch.sampling import run_sampling

    finished = run_sampling(preparation.loaded, folder, SAMPLES)
    if finished:
        mark_sampled(folder.path)
    return finished


def _curate(run_dir: Path, config: Config) -> None:
    """Make the dataset and say what came of it. Raises DataError where nothing is left."""
    from r1ray.curation.dataset import make_dataset

    with console.status("curating") as status:
        report = make_dataset(run_dir, config, lambda done: status.update(f"curating: {done:,} texts refined"))
    total = report["total"]
    if not total["kept"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in total["dropped"].items()) or "there were none"
        raise DataError(f"no sample was kept ({reasons}): see {run_dir / 'report.md'} and the section `curation`")
    kept = f"{total['kept']:,} of {total['samples']:,} samples ({share(total['kept'] / total['samples'])})"
    console.print(f"Dataset: {kept} in {run_dir / 'dataset'}; the mix in {run_dir / 'report.md'}", soft_wrap=True)
