"""Compute the figures of a benchmark from its samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from r1ray.rewards.answers.canonical import VOTED, ballot, merged
from r1ray.rewards.answers.choice import options
from r1ray.rewards.answers.estimators import consensus, ks, pass_at_k
from r1ray.rewards.answers.summary import mean_and_error
from r1ray.sampling.store import SampleRow

ACCURACY = "accuracy"


def accuracy_of_parts(parts: dict[str, float]) -> float:
    """The accuracy among the parts of a score, whatever its label; 0.0 if it could not be judged."""
    values = [value for name, value in parts.items() if name.partition("/")[0] == ACCURACY]
    return min(values) if values else 0.0


def figures(
    rows: Iterable[SampleRow], *, verifier: str, same: Callable[[str, str], bool] | None = None
) -> dict[str, Any]:
    """All figures of one source. `rows` come in the order of their problems; errors are standard errors over problems.

    `accuracy` is pass@1, the mean over samples. `pass_at` and `pass_at_se` have the k of
    `estimators.ks`. `consensus` is cons@n, or None if answers that `verifier` judges cannot agree;
    equal answers are those with one canonical form, and in mathematics those that `same` finds
    equal. A sample that could not be judged is not right, and counts under `errors` by kind.
    """
    problems = [list(group) for _, group in groupby(rows, key=lambda row: row.index)]
    n = min(map(len, problems))
    samples = [row for problem in problems for row in problem]
    rights = [[accuracy_of_parts(row.parts) for row in problem] for problem in problems]
    accuracy, error = mean_and_error([math.fsum(right) / len(right) for right in rights])
    passes = {k: mean_and_error([_pass(right, k) for right in rights]) for k in ks(n)}
    found: dict[str, Any] = {
        "problems": len(problems),
        "samples": n,
        "accuracy": accuracy,
        "accuracy_se": error,
        "pass_at": {str(k): mean for k, (mean, _) in passes.items()},
        "pass_at_se": {str(k): se for k, (_, se) in passes.items()},
        "consensus": None,
        "consensus_se": None,
        "length": math.fsum(row.tokens for row in samples) / len(samples),
        "truncated": sum(row.finish_reason == "length" for row in samples) / len(samples),
        "answered": sum(row.answer_text is not None for row in samples) / len(samples),
        "errors": dict(Counter(row.error.partition(":")[0] for row in samples if row.error)),
        "parts": _parts(samples),
    }
    if verifier in VOTED:
        voted = [consensus(_ballots(p, r, verifier, same), r) for p, r in zip(problems, rights, strict=True)]
        found["consensus"], found["consensus_se"] = mean_and_error(voted)
    return found


def _ballots(
    problem: Sequence[SampleRow], right: Sequence[float], verifier: str, same: Callable[[str, str], bool] | None
) -> list[str | None]:
    choices = options(problem[0].answer, problem[0].meta)
    found = [ballot(row.answer_text, verifier, choices) for row in problem]
    return merged(found, right, same) if verifier == "math" else found


def _pass(right: Sequence[float], k: int) -> float:
    """pass@k of one problem; partial credit is not right."""
    return pass_at_k(len(right), sum(value >= 1.0 for value in right), k)


def _parts(samples: Sequence[SampleRow]) -> dict[str, float]:
    """Mean of each part over the samples that have it; accuracies are merged, whatever their labels."""
    sums: dict[str, list[float]] = {}
    for row in samples:
        for name, value in row.parts.items():
            kind = name.partition("/")[0]
            sums.setdefault(kind if kind == ACCURACY else name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in sums.items()}
