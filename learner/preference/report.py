"""Accuracy of a reward model on held-out rows, and how much of its score is length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from learner.correlation import correlation
from learner.preference.rows import Example
from r1ray.rewards.learned.preference import Kind

Array = npt.NDArray[np.float64]


def measure(kind: Kind, examples: Sequence[Example], scores: Sequence[float]) -> dict[str, float | None]:
    """Metrics of held-out examples; `scores` are those of their sequences, in order. None: undefined.

    `length_correlation` is Pearson's of score and tokens, for pairs of the differences within a pair.
    """
    values = np.asarray(scores, dtype=np.float64)
    lengths = np.array([n for e in examples for n in e.lengths], dtype=np.float64)
    if kind == "pairwise":
        return _pairs(values.reshape(-1, 2), lengths.reshape(-1, 2))
    safe = np.array([bool(e.safe) for e in examples])
    return {
        "rows": float(len(examples)),
        "accuracy": float(np.mean((values > 0) == safe)),
        "safe": float(safe.mean()),
        "judged_safe": float(np.mean(values > 0)),
        "length_correlation": correlation(values, lengths),
        "label_length_correlation": correlation(safe, lengths),
    }


def _pairs(scores: Array, lengths: Array) -> dict[str, float | None]:
    """`scores` and `lengths` are [pairs, 2]: chosen, rejected. A tie of scores counts as half.

    `longer_preferred` and `longer_chosen` leave pairs of equal length out.
    """
    preferred = 0.5 * (1.0 + np.sign(scores[:, 0] - scores[:, 1]))  # 1.0: the model prefers the chosen one
    longer = lengths[:, 0] - lengths[:, 1]
    uneven = longer != 0
    by_model = np.where(longer > 0, preferred, 1.0 - preferred)[uneven]
    # Count each pair in both orders, so that the order cannot correlate with anything.
    both_scores, both_lengths = np.concatenate([scores, scores[:, ::-1]]), np.concatenate([lengths, lengths[:, ::-1]])
    return {
        "rows": float(len(scores)),
        "accuracy": float(preferred.mean()),
        "longer_preferred": float(by_model.mean()) if uneven.any() else None,
        "longer_chosen": float(np.mean(longer[uneven] > 0)) if uneven.any() else None,
        "length_correlation": correlation(np.subtract(*both_scores.T), np.subtract(*both_lengths.T)),
    }
