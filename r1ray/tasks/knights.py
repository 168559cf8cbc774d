"""Knights, who always tell the truth, and knaves, who always lie."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

from r1ray.tasks.answers import clean
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw, span
from r1ray.tasks.vocabulary import NAMES

Claim = tuple[str, tuple[int, ...]]
"""A statement: its form, and the persons (for `count`: the number) that it is about."""

_SPELLING = {
    "knight": "{0} is a knight",
    "knave": "{0} is a knave",
    "both": "{0} and {1} are both knights",
    "either": "at least one of {0} and {1} is a knave",
    "same": "{0} and {1} are of the same kind",
    "differ": "{0} and {1} are of different kinds",
    "if": "if {0} is a knight, so is {1}",
    "count": "the number of knaves is {0}",
}
_VERDICT = re.compile(r"(\w+)\s*(?::|=|\bis\b)\s*(?:a\s+)?(knight|knave)")


class KnightsTask:
    """Each person makes a statement; exactly one assignment of knights and knaves agrees with all of them."""

    def __init__(self, people: Any = (2, 4)) -> None:
        """`people`: how many, [least, most]."""
        self._people = span("knights", "people", people, 2, 5)

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("knights", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate | None:
        count = rng.randint(*self._people)
        claims = [_claim(rng, speaker, count) for speaker in range(count)]
        found = solutions(claims)
        if len(found) != 1:
            return None
        names = rng.sample(NAMES, count)
        said = " ".join(f"{names[i]} says that {_spell(claim, names)}." for i, claim in enumerate(claims))
        kinds = {name: "knight" if honest else "knave" for name, honest in zip(names, found[0], strict=True)}
        return Candidate(
            key=_key(claims),
            prompt=f"Knights always tell the truth, knaves always lie. {said} Who is what? "
            f"Answer in the form: {', '.join(f'{name}: knight or knave' for name in names)}.",
            answer=kinds,
        )

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        parts = [p.strip() for p in re.split(r",|;|\n|\band\b", clean(answer).lower()) if p.strip()]
        verdicts = [_VERDICT.fullmatch(part) for part in parts]
        if len(verdicts) != len(truth):
            return False
        return {v.group(1): v.group(2) for v in verdicts if v} == {name.lower(): kind for name, kind in truth.items()}


def _claim(rng: random.Random, speaker: int, count: int) -> Claim:
    form = rng.choice(list(_SPELLING))
    others = [person for person in range(count) if person != speaker]
    if form in ("knight", "knave"):
        return form, (rng.choice(others),)
    if form == "count":
        return form, (rng.randint(0, count),)
    return form, tuple(rng.sample(range(count), 2))


def _spell(claim: Claim, names: Sequence[str]) -> str:
    form, of = claim
    return _SPELLING[form].format(*(of if form == "count" else [names[person] for person in of]))


def _is_true(claim: Claim, honest: Sequence[bool]) -> bool:
    form, of = claim
    if form == "count":
        return honest.count(False) == of[0]
    first, last = honest[of[0]], honest[of[-1]]
    return {
        "knight": first,
        "knave": not first,
        "both": first and last,
        "either": not (first and last),
        "same": first == last,
        "differ": first != last,
        "if": last or not first,
    }[form]


def solutions(claims: Sequence[Claim]) -> list[tuple[bool, ...]]:
    """All assignments of honesty (one flag per person) in which exactly the honest persons tell the truth."""
    worlds = product((True, False), repeat=len(claims))
    return [
        world for world in worlds if all(_is_true(c, world) == honest for c, honest in zip(claims, world, strict=True))
    ]


def _key(claims: Sequence[Claim]) -> str:
    """A key that does not change if the persons are renamed or reordered."""

    def under(order: tuple[int, ...]) -> list[tuple[int, str, tuple[int, ...]]]:
        return sorted(
            (order[i], form, of if form == "count" else _symmetric(form, tuple(order[person] for person in of)))
            for i, (form, of) in enumerate(claims)
        )

    return str(min(under(order) for order in permutations(range(len(claims)))))


def _symmetric(form: str, of: tuple[int, ...]) -> tuple[int, ...]:
    return of if form == "if" else tuple(sorted(of))
