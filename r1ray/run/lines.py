"""One-line summaries of a run's progress, for logs and for the live screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1ray.util.formatting import duration, number, share

Status = Mapping[str, Any]
"""The record of status.json."""


def step_line(status: Status, total_steps: int) -> str:
    """One line for a training step, for logs."""
    m = status["metrics"]
    parts = [f"step {m['step'] + 1}/{status.get('steps') or total_steps}", f"reward {number(m.get('reward/mean'))}"]
    if "reward/part/accuracy" in m:
        parts.append(f"accuracy {share(m['reward/part/accuracy'])}")
    parts.append(f"length {number(m.get('length/mean'))}")
    rates = status.get("rates") or {}
    for side in ("rollout", "learner"):
        parts.append(f"{side} {number(rates.get(f'{side}_tokens_per_s', m.get(f'{side}/tokens_per_s')))} tok/s")
    parts.append(f"staleness {number(m.get('staleness/mean'))}")
    if status.get("eta_s") is not None:
        parts.append(f"{duration(status['eta_s'])} left")
    return "  ".join(parts)


def evaluation_line(row: Mapping[str, Any]) -> str:
    """One line for an evaluation."""
    text = f"{row['source']}: accuracy {share(row.get('accuracy'))} sampled"
    if row.get("greedy_accuracy") is not None:
        text += f", {share(row['greedy_accuracy'])} greedy"
    if row.get("errors"):  # counted as wrong, which they may not be
        text += f", {row['errors']:,} samples could not be scored"
    return f"{text}, format {share(row.get('format'))}, length {number(row.get('length'))} (policy {row['step']})"
