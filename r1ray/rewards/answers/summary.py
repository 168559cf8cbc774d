"""Figures of one evaluation of one source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from r1ray.rewards.answers.answer import opening
from r1ray.rewards.answers.canonical import VOTED, ballot, canonical_answer, merged
from r1ray.rewards.answers.choice import options
from r1ray.rewards.answers.estimators import consensus, ks, pass_at_k
from r1ray.types import Score, ScoredGroup


def accuracy_of(score: Score) -> float:
    """1.0 if the answer is right. An answer that could not be judged is not right, and is counted under `errors`."""
    return score.of_kind("accuracy") or 0.0


def mean_and_error(per_problem: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error over problems: sqrt(sum (x - mean)^2 / (n (n - 1))); the error of one problem is 0.

    Samples of one problem are not independent, so the unit is the problem, with the mean over its samples.
    """
    n = len(per_problem)
    mean = math.fsum(per_problem) / n
    if n == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in per_problem) / (n * (n - 1)))


def summarise(
    sampled: Sequence[ScoredGroup], greedy: Sequence[ScoredGroup], verifier: str | None = None
) -> dict[str, Any]:
    """The figures of `evaluations.jsonl` that come from samples: pass@1 (mean over k), standard error, format, length.

    `parts` and `parts_se` have the mean and its standard error of every other reward, over the samples that it judged.

    With several samples also `pass_at` (k' -> pass@k') and, if `verifier` judges answers that can agree, `consensus`
    (cons@k).
    """
    scores = [s for g in sampled for s in g.scores]
    completions = [c for g in sampled for c in g.rollout.completions]
    accuracy, error = mean_and_error([math.fsum(map(accuracy_of, g.scores)) / len(g.scores) for g in sampled])
    lengths = [len(c.token_ids) for c in completions]
    row: dict[str, Any] = {
        "problems": len(sampled),
        "samples": len(sampled[0].scores),
        "accuracy": accuracy,
        "accuracy_se": error,
        "length": math.fsum(lengths) / len(lengths),
        "truncated": sum(c.finish_reason == "length" for c in completions) / len(completions),
        "errors": sum(s.error is not None for s in scores),
        "versions": [
            min(g.rollout.min_policy_version for g in sampled),
            max(g.rollout.max_policy_version for g in sampled),
        ],
    }
    formats = [score.of_kind("format") for score in scores]
    if any(judged is not None for judged in formats):
        row["format"] = math.fsum(judged or 0.0 for judged in formats) / len(scores)
    if parts := _parts(sampled):
        row["parts"] = {name: mean for name, (mean, _) in parts.items()}
        row["parts_se"] = {name: error for name, (_, error) in parts.items()}
    if row["samples"] > 1:
        row |= _of_several(sampled, verifier)
    if greedy:
        row["greedy_accuracy"] = math.fsum(accuracy_of(g.scores[0]) for g in greedy) / len(greedy)
    return row


def _parts(sampled: Sequence[ScoredGroup]) -> dict[str, tuple[float, float]]:
    """Reward -> mean and standard error over problems, for rewards that have no column of their own."""
    values: dict[str, list[float]] = {}
    for group in sampled:
        for name in dict.fromkeys(name for score in group.scores for name in score.parts):
            if name.partition("/")[0] not in ("accuracy", "format"):
                judged = [score.parts[name] for score in group.scores if name in score.parts]
                values.setdefault(name, []).append(math.fsum(judged) / len(judged))
    return {name: mean_and_error(per_problem) for name, per_problem in sorted(values.items())}


def _of_several(sampled: Sequence[ScoredGroup], verifier: str | None) -> dict[str, Any]:
    values = [[accuracy_of(score) for score in group.scores] for group in sampled]
    figures: dict[str, Any] = {"pass_at": {}, "pass_at_se": {}}
    for k in ks(len(values[0])):
        mean, error = mean_and_error([pass_at_k(len(v), sum(x >= 1.0 for x in v), k) for v in values])
        figures["pass_at"][str(k)], figures["pass_at_se"][str(k)] = mean, error
    if verifier in VOTED:
        voted = [consensus(_ballots(g, v, verifier), v) for g, v in zip(sampled, values, strict=True)]
        figures["consensus"], figures["consensus_se"] = mean_and_error(voted)
    return figures


def _ballots(group: ScoredGroup, values: Sequence[float], verifier: str | None) -> list[str | None]:
    """The votes of a group. Expressions are not compared: that takes processes and time, which training needs."""
    prompt = group.rollout.prompt
    opened, choices = bool(opening(prompt.meta)), options(prompt.answer, prompt.meta)
    texts = [
        canonical_answer(c.text, c.finish_reason, opened=opened, choices=choices) for c in group.rollout.completions
    ]
    found = [ballot(text, verifier, choices) for text in texts]
    return merged(found, values) if verifier == "math" else found
