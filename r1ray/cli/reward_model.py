"""`r1ray reward-model`: train a reward model on preferences."""

from __future__ import annotations

import typer

from r1ray.cli import _start


def register(app: typer.Typer) -> None:
    """Add `reward-model`."""
    app.command(name="reward-model")(reward_model)


def reward_model(
    items: _start.ConfigArgument = None,
    resume: _start.ResumeOption = None,
    fresh: _start.FreshOption = False,
    dry_run: _start.DryRunOption = False,
) -> None:
    """Train a reward model on preferences. See docs/rewards.md.

    data.train names the rows, reward_model.kind whether they are pairs or single judgements.
    Example: r1ray reward-model conf/reward_model.yaml model.path=models/base
    """
    _start.supervised("reward-model", items, resume, fresh=fresh, dry_run=dry_run)
