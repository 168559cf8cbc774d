"""Whether what a recipe claims holds, by the figures of its evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r1ray.report.recipe_record import RecipeRecord
from r1ray.util.formatting import number

_SIGNS = {"at_least": ">=", "above": ">", "below": "<"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One claim against what was measured. Producer: `verdicts`. Consumer: the command `verify`."""

    name: str
    holds: bool  # false, too, where a figure was not measured
    said: str  # the claim with its figures


def verdicts(recipe: RecipeRecord) -> list[Verdict]:
    """One verdict for each claim of recipe.json, in its order."""
    return [_verdict(recipe, claim) for claim in recipe.claims]


def _verdict(recipe: RecipeRecord, claim: dict[str, Any]) -> Verdict:
    benchmark, key = claim["benchmark"] or recipe.benchmark, str(claim["figure"])
    bound, margin, relation = claim["bound"], float(claim["margin"]), str(claim["relation"])
    value = recipe.figure_on(benchmark, claim["of"], key)
    other = recipe.figure_on(benchmark, bound, key) if isinstance(bound, str) else float(bound)
    told = f"{key} of {claim['of']} ({_shown(value)}) {_SIGNS[relation]} "
    told += f"{bound} ({_shown(other)})" if isinstance(bound, str) else _shown(other)
    told += f" {'+' if margin > 0 else '-'} {number(abs(margin))}" if margin else ""
    if value is None or other is None:
        return Verdict(name=claim["name"], holds=False, said=f"{told}, on {benchmark or 'no benchmark yet'}")
    limit = other + margin
    holds = {"at_least": value >= limit, "above": value > limit, "below": value < limit}[relation]
    return Verdict(name=claim["name"], holds=holds, said=f"{told}, on {benchmark}")


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
