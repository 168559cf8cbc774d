"""Pearson's correlation of two quantities, such as reward and length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROUNDING = 1e-12
"""A spread below this share of the largest value is rounding: the quantity does not vary."""


def correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float | None:
    """Pearson's correlation of two arrays [n], in [-1, 1]; None if one of them does not vary."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.size == 0 or any(v.std() <= ROUNDING * max(1.0, float(np.abs(v).max())) for v in (a, b)):
        return None
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
