"""`r1ray sft`: supervised fine-tuning on conversations."""

from __future__ import annotations

import typer

from r1ray.cli import _start


def register(app: typer.Typer) -> None:
    """Add `sft`."""
    app.command()(sft)


def sft(
    items: _start.ConfigArgument = None,
    resume: _start.ResumeOption = None,
    fresh: _start.FreshOption = False,
    dry_run: _start.DryRunOption = False,
) -> None:
    """Fine-tune a model on conversations. See docs/sft.md.

    Example: r1ray sft my.yaml model.path=models/base, or r1ray sft --resume runs/sft
    """
    _start.supervised("sft", items, resume, fresh=fresh, dry_run=dry_run)
