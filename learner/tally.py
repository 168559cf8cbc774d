"""Sums kept on the device during a step and reduced over the ranks once, at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Tally:
    """Means and maxima of named quantities over all ranks.

    The names are fixed beforehand, so that every rank reduces the same vector. A mean over nothing is left out.
    """

    def __init__(self, *, means: Sequence[str], maxima: Sequence[str], device: torch.device) -> None:
        self._means = {name: i for i, name in enumerate(means)}
        self._maxima = {name: i for i, name in enumerate(maxima)}
        self._sums = torch.zeros(2, len(means), dtype=torch.float64, device=device)  # totals, counts
        self._largest = torch.full((len(maxima),), -torch.inf, dtype=torch.float64, device=device)

    def add(self, name: str, total: Tensor | float, count: Tensor | float) -> None:
        """Add `total`, a sum over `count` things, to the mean `name`."""
        self._sums[0, self._means[name]] += total
        self._sums[1, self._means[name]] += count

    def largest(self, name: str, values: Tensor) -> None:
        """Take the largest of `values` (of any shape, also empty) into the maximum `name`."""
        if values.numel():
            i = self._maxima[name]
            self._largest[i] = torch.maximum(self._largest[i], values.max().double())

    def reduce(self, all_reduce: Callable[[Tensor, str], Tensor]) -> tuple[dict[str, float], dict[str, float]]:
        """(values, counts of the means), over all ranks. A collective."""
        totals, counts = all_reduce(self._sums, "sum").tolist()
        largest = all_reduce(self._largest, "max").tolist()
        values = {name: totals[i] / counts[i] for name, i in self._means.items() if counts[i]}
        values.update({name: largest[i] for name, i in self._maxima.items() if largest[i] > -torch.inf})
        return values, {name: counts[i] for name, i in self._means.items()}
