"""Section `hacking_monitor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class HackingMonitorConfig:
    """Signs of reward hacking: a bound exceeded for some steps in a row is an event in events.jsonl and the report."""

    max_kl: Annotated[
        float | None,
        Range(gt=0),
        Doc(
            "bound of train/kl; needs a reference policy even if kl_coefficient is 0: its memory, and a forward pass "
            "per step; null: no bound"
        ),
    ] = None
    max_length_correlation: Annotated[
        float | None,
        Range(ge=0, le=1),
        Doc("bound of the correlation of a `model` or `judge` reward with the response's length; null: no bound"),
    ] = None
    consecutive_steps: Annotated[int, Range(ge=1), Doc("steps in a row beyond the bound")] = 5
    max_heldout_fall: Annotated[
        dict[str, float],
        Range(ge=0),
        Doc(
            "largest fall of a reward's held-out mean since policy 0, e.g. {fluency: 0.25}: compared at the end and in "
            "the report"
        ),
    ] = field(default_factory=dict)
