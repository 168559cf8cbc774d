"""How far one quantity goes with another, such as reward with length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_NOISE = 1e-12
"""Spread of rounding, as a share of the largest value: less is none."""


def correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float | None:
    """Pearson's correlation of two rows of n numbers, in [-1, 1]; None where one of them does not vary."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.size == 0 or any(v.std() <= _NOISE * max(1.0, float(np.abs(v).max())) for v in (a, b)):
        return None
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
