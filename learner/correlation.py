"""How far one quantity goes with another, such as reward with length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from learner.tally import Tally
from r1ray.config.rules import LENGTH_CORRELATION
from r1ray.types import ScoredGroup

_NOISE = 1e-12
"""Spread of rounding, as a share of the largest value: less is none."""


def correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float | None:
    """Pearson's correlation of two rows of n numbers, in [-1, 1]; None where one of them does not vary."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.size == 0 or any(v.std() <= _NOISE * max(1.0, float(np.abs(v).max())) for v in (a, b)):
        return None
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


class LengthRewardCorrelation:
    """How far single rewards go with length, over all ranks: each less its group's mean, the products summed in the tally."""

    def __init__(self, rewards: Sequence[str]) -> None:
        self._rewards = rewards
        self.means = [f"{name}/{kind}" for name in rewards for kind in ("product", "reward", "length")]
        """What a tally needs."""

    def add(self, group: ScoredGroup, completions: Sequence[int], tally: Tally) -> None:
        """These completions of a group. A group without the reward, as its source does not use it, counts for nothing."""
        lengths_G = np.array([len(c.token_ids) for c in group.rollout.completions], dtype=np.float64)
        y = (lengths_G - lengths_G.mean())[list(completions)]
        for name in self._rewards:
            if any(name not in score.parts for score in group.scores):
                continue
            rewards_G = np.array([score.parts[name] for score in group.scores])
            x = (rewards_G - rewards_G.mean())[list(completions)]
            for kind, product in (("product", x @ y), ("reward", x @ x), ("length", y @ y)):
                tally.add(f"{name}/{kind}", float(product), len(y))

    def take(self, observed: dict[str, float]) -> Mapping[str, float]:
        """The metrics; their sums leave `observed`. Left out where reward or length does not vary."""
        metrics = {}
        for name in self._rewards:
            found = [observed.pop(f"{name}/{kind}", 0.0) for kind in ("product", "reward", "length")]
            if min(found[1:]) > _NOISE**2:
                metrics[f"{LENGTH_CORRELATION}/{name}"] = float(
                    np.clip(found[0] / np.sqrt(found[1] * found[2]), -1.0, 1.0)
                )
        return metrics
