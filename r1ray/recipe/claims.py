"""What a recipe claims that its policies reach, as its files state it; `r1ray verify` asks whether it holds.

claims:
  distilled_better: {figure: accuracy, of: distill, above: student_rl}
  still_right: {figure: accuracy, of: rl_all, at_least: r1_zero, margin: -0.03}
  mixed_before: {figure: parts/language, of: r1_zero, below: 0.8}
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from r1ray.config.sources import Source
from r1ray.recipe.kinds import fits
from r1ray.recipe.problems import ProblemCollector
from r1ray.recipe.records import Claim
from r1ray.util.hints import nearest

RELATIONS = ("at_least", "above", "below")
_KEYS = ("figure", "of", "margin", "benchmark", *RELATIONS)


def read_claims(complaints: ProblemCollector, source: Source, value: Any, claims: dict[str, Claim]) -> None:
    """Take the claims of one file into `claims`; null drops one of an earlier file. What is wrong with them is noted."""
    for name, stated in complaints.map(source, "claims", value).items():
        key = f"claims.{name}"
        claims.pop(name, None)
        if stated is None:
            continue
        content = complaints.map(source, key, stated)
        complaints.known(source, key, content, _KEYS)
        relations = [relation for relation in RELATIONS if relation in content]
        if len(relations) != 1:
            fix = f"one of {', '.join(RELATIONS)}: a policy or a number"
            complaints.problem(key, content, "needs one thing to be compared with", fix, source)
            continue
        bound, margin, benchmark = content[relations[0]], content.get("margin", 0.0), content.get("benchmark")
        texts = [content.get("figure"), content.get("of"), *([] if benchmark is None else [benchmark])]
        if not all(isinstance(t, str) and t for t in texts) or not fits(margin, "number"):
            fix = "figure (as in results.json, e.g. accuracy or parts/format) and of (a policy) as texts, margin as a number"
            complaints.problem(key, content, "is no claim", fix, source)
        elif not fits(bound, "number") and not fits(bound, "text"):
            complaints.problem(f"{key}.{relations[0]}", bound, "is neither a policy nor a number", "give one", source)
        else:
            claims[name] = Claim(
                name=name,
                figure=content["figure"],
                of=content["of"],
                relation=relations[0],
                bound=bound if isinstance(bound, str) else float(bound),
                margin=float(margin),
                benchmark=benchmark,
            )


def check_claims(complaints: ProblemCollector, claims: Collection[Claim], evaluated: Collection[str]) -> None:
    """Note every claim about a policy that the recipe does not evaluate."""
    for claim in claims:
        for policy in (claim.of, claim.bound):
            if isinstance(policy, str) and policy not in evaluated:
                message = f"speaks of {policy}, which is not evaluated"
                fix = f"{nearest(policy, evaluated)}; null drops a claim"
                complaints.problem(f"claims.{claim.name}", policy, message, fix)
