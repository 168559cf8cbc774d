"""Growth of the memory of a run's processes, from the metrics `memory/*` of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from r1ray.run.metrics import Row

PREFIX, SUFFIX = "memory/", "_bytes"
WARM_UP = 0.2
"""Share of the steps that is left out at the start: engines and allocators still grow then."""
FEWEST = 10
"""Steps after the warm-up; fewer show no trend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Resident memory of one kind of process after the warm-up."""

    process: str
    first_bytes: float  # mean of the first tenth of these steps
    last_bytes: float  # mean of the last tenth
    bytes_per_step: float  # slope of the least-squares line


def memory_growth(rows: Sequence[Row]) -> list[Growth]:
    """Growth of each kind of process. Empty for runs with too few steps.

    Example: 100 bytes at step 0, 102 at step 1, ..., so 2 bytes per step.
    """
    kept = rows[int(WARM_UP * len(rows)) :]
    found = []
    for key in sorted({key for row in kept for key in row if key.startswith(PREFIX)}):
        points = [(float(row["step"]), float(row[key])) for row in kept if key in row]
        if len(points) < FEWEST:
            continue
        tenth = max(1, len(points) // 10)
        found.append(
            Growth(
                process=key.removeprefix(PREFIX).removesuffix(SUFFIX),
                first_bytes=fmean(y for _, y in points[:tenth]),
                last_bytes=fmean(y for _, y in points[-tenth:]),
                bytes_per_step=_slope(points),
            )
        )
    return found


def _slope(points: Sequence[tuple[float, float]]) -> float:
    x, y = (fmean(p[i] for p in points) for i in (0, 1))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
