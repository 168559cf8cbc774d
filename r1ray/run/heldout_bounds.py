"""Bounds on the fall of held-out rewards (`hacking_monitor.max_heldout_fall`): within or beyond, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from r1ray.run.metrics import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldoutFall:
    """One reward on one source: before training and after the newest evaluation. Producer: `heldout_falls`."""

    reward: str
    source: str
    step: int  # policy of the newest evaluation
    start: float  # mean of the policy that training started from
    end: float
    error: float  # standard error of the difference
    bound: float

    @property
    def within(self) -> bool:
        """Whether the mean fell by no more than the bound."""
        return self.start - self.end <= self.bound

    @property
    def text(self) -> str:
        """One sentence without its full stop."""
        fall = self.start - self.end
        moved = f"fell by {fall:.2f}" if fall > 0 else f"rose by {-fall:.2f}"
        return (
            f"Held-out {self.reward} on {self.source} {moved} (standard error {self.error:.2f}), from {self.start:.2f} "
            "to "
            f"{self.end:.2f} with policy {self.step}: {'within' if self.within else 'beyond'} the bound of "
            f"{self.bound:g}"
        )


def heldout_falls(evaluations: Sequence[Row], bounds: Mapping[str, float]) -> Iterator[HeldoutFall]:
    """Compare the newest evaluation of each source with that of policy 0, for each reward with a bound."""
    for source in dict.fromkeys(row["source"] for row in evaluations):
        rows = [row for row in evaluations if row["source"] == source]
        first, last = rows[0], rows[-1]
        for reward, bound in bounds.items():
            start, end = (row.get("parts", {}).get(reward) for row in (first, last))
            if first["step"] != 0 or last["step"] == 0 or start is None or end is None:
                continue
            errors = [row.get("parts_se", {}).get(reward, 0.0) for row in (first, last)]
            yield HeldoutFall(
                reward=reward,
                source=source,
                step=last["step"],
                start=start,
                end=end,
                error=math.hypot(*errors),
                bound=bound,
            )
