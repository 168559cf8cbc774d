"""`r1ray sft`: supervised fine-tuning on conversations."""

from __future__ import annotations

import typer

from r1ray.cli import _start
from r1ray.cli._output import refuse_together


def register(app: typer.Typer) -> None:
    """Add `sft`."""
    app.command()(sft)


def sft(
    items: _start.ConfigArgument = None,
    resume: _start.ResumeOption = None,
    fresh: _start.FreshOption = False,
    dry_run: _start.DryRunOption = False,
) -> None:
    """Fine-tune on conversations: `r1ray sft CONFIG model.path=FOLDER`, or `r1ray sft --resume RUN`. See docs/sft.md."""
    from r1ray.preflight.prepare import Preparation

    refuse_together(resume=resume, fresh=fresh)
    overlays, overrides = _start.split(items)
    if resume:
        preparation = Preparation.resumed(resume, overlays, overrides, "sft")
    else:
        preparation = Preparation.new(overlays, overrides, "sft")
    data = _start.check(preparation, dry_run=dry_run, fresh=fresh)
    if dry_run:
        return

    from r1ray.launch.sft import finetune

    with preparation.folder(fresh=fresh, data=data) as folder:
        code = finetune(preparation.loaded, folder, data, resume=resume is not None)
    raise typer.Exit(code)
