"""`r1ray sft`: supervised fine-tuning on conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1ray.cli._output import refuse_together


def register(app: typer.Typer) -> None:
    """Add `sft`."""
    app.command()(sft)


def sft(
    items: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG|KEY=VALUE", help="Overlays over conf/base.yaml, and keys."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue the run in this folder.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Keep a run that is in run.dir under another name.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, where, and in how much memory.")
    ] = False,
) -> None:
    """Fine-tune on conversations: `r1ray sft CONFIG model.path=...`, or `r1ray sft --resume RUN`. See docs/sft.md."""
    from r1ray.preflight.prepare import EMBEDDED_FOLDER, Preparation

    refuse_together(resume=resume, fresh=fresh)
    overlays = [item for item in items or [] if "=" not in item]
    overrides = [item for item in items or [] if "=" in item]
    if resume:
        preparation = Preparation.resumed(resume, overlays, overrides, "sft")
    else:
        preparation = Preparation.new(overlays, overrides, "sft")
    if dry_run:
        typer.echo(preparation.describe())
        return

    if preparation.takes_embedded_model and not resume:
        from r1ray.cli.tiny import build_unless_current

        build_unless_current(EMBEDDED_FOLDER)

    from r1ray.launch.sft import finetune, preflight

    preparation.check()
    data = preflight(preparation.loaded.config)
    with preparation.folder(fresh=fresh, data=data) as folder:
        code = finetune(preparation.loaded, folder, data, resume=resume is not None)
    raise typer.Exit(code)
