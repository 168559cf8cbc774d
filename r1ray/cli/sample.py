"""`r1ray sample`: sample responses to every prompt, and filter them into a dataset for `r1ray sft`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1ray.cli import _start
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
    items: _start.ConfigArgument = None,
    resume: _start.ResumeOption = None,
    only_curate: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Make the dataset of a finished run again, e.g. with other filters."),
    ] = None,
    fresh: _start.FreshOption = False,
    dry_run: _start.DryRunOption = False,
) -> None:
    """Sample responses to every prompt and filter them into a dataset for `r1ray sft`. See docs/curation.md.

    Example: r1ray sample my.yaml model.path=models/policy, or r1ray sample --resume runs/sample
    """
    from r1ray.preflight.prepare import Preparation

    refuse_together(resume=resume, only_curate=only_curate, fresh=fresh)
    overlays, overrides = _start.split(items)
    if begun := resume or only_curate:
        preparation = Preparation.resumed(begun, overlays, overrides, "sample")
    else:
        preparation = Preparation.new(overlays, overrides, "sample")
    if only_curate:
        _only_curate(preparation, dry_run=dry_run)
        return
    _start.check(preparation, dry_run=dry_run, fresh=fresh)
    if not dry_run:
        _sample(preparation, fresh=fresh)


def _only_curate(preparation: Preparation, *, dry_run: bool) -> None:
    from r1ray.curation.dataset import check_inputs

    config = preparation.loaded.config
    check_inputs(config)
    if not dry_run:
        with preparation.reopened() as folder:
            _curate(folder.path, config)


def _sample(preparation: Preparation, *, fresh: bool) -> None:
    from r1ray.curation.dataset import is_sampled

    with preparation.folder(fresh=fresh) as folder:
        if is_sampled(folder.path) or _run(preparation, folder):
            _curate(folder.path, preparation.loaded.config)
        else:
            console.print(f"Stopped. Continue with `r1ray sample --resume {folder.path}`.", soft_wrap=True)


def _run(preparation: Preparation, folder: RunFolder) -> bool:
    """Sample what is missing. Returns whether all samples exist now."""
    from r1ray.curation.dataset import SAMPLES, mark_sampled
    from r1ray.launch.sampling import run_sampling

    finished = run_sampling(preparation.loaded, folder, SAMPLES)
    if finished:
        mark_sampled(folder.path)
    return finished


def _curate(run_dir: Path, config: Config) -> None:
    """Make the dataset and print its size. Raises DataError if the filters leave nothing."""
    from r1ray.curation.dataset import make_dataset

    with console.status("curating") as status:
        report = make_dataset(run_dir, config, lambda done: status.update(f"curating: {done:,} texts refined"))
    total = report["total"]
    if not total["kept"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in total["dropped"].items()) or "there were none"
        raise DataError(f"no sample was kept ({reasons}): see {run_dir / 'report.md'} and the section `curation`")
    kept = f"{total['kept']:,} of {total['samples']:,} samples ({share(total['kept'] / total['samples'])})"
    console.print(f"Dataset: {kept} in {run_dir / 'dataset'}; the mix in {run_dir / 'report.md'}", soft_wrap=True)
