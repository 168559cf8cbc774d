"""Syllogisms: which conclusion follows from two premises."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from r1ray.tasks.answers import letter
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw
from r1ray.tasks.vocabulary import PLURALS

Statement = tuple[str, int, int]
"""(form, subject, predicate); the terms are 0, 1 and 2, and 1 is the middle term."""

_FORMS = {"all": "All {} are {}", "no": "No {} are {}", "some": "Some {} are {}", "not": "Some {} are not {}"}
_CONCLUSIONS: tuple[Statement, ...] = (
    ("all", 0, 2),
    ("all", 2, 0),
    ("no", 0, 2),
    ("some", 0, 2),
    ("not", 0, 2),
    ("not", 2, 0),
)
_NONE_SHARE = 0.2
"""Share of problems whose premises prove nothing; without it, most would be such problems."""


class SyllogismTask:
    """Choose from four conclusions and "None of these follows"; exactly one choice is right."""

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("syllogism", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate:
        terms = rng.sample(PLURALS, 3)
        fruitless = rng.random() < _NONE_SHARE
        while True:
            premises = [_premise(rng, 0), _premise(rng, 2)]
            valid = [c for c in _CONCLUSIONS if follows(premises[0], premises[1], c)]
            if fruitless != bool(valid):
                break
        invalid = [c for c in _CONCLUSIONS if c not in valid]
        right = [rng.choice(valid)] if valid else []
        options = [*right, *rng.sample(invalid, 4 - len(right))]
        rng.shuffle(options)
        rng.shuffle(premises)
        choices = [*(_spell(o, terms) for o in options), "None of these follows"]
        listed = "\n".join(f"{chr(65 + i)}. {choice}." for i, choice in enumerate(choices))
        said = [_spell(p, terms) for p in premises]
        return Candidate(
            key=" ".join(sorted(said)),
            prompt=f"{said[0]}. {said[1]}. There may be none of any kind.\nWhat must be true?\n{listed}\n"
            "Answer with the letter.",
            answer=chr(65 + (options.index(right[0]) if right else 4)),
        )

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        return letter(answer) == str(truth)


def _premise(rng: random.Random, end: int) -> Statement:
    pair = [1, end]
    rng.shuffle(pair)
    return rng.choice(list(_FORMS)), pair[0], pair[1]


def _spell(statement: Statement, terms: list[str]) -> str:
    form, subject, predicate = statement
    return _FORMS[form].format(terms[subject], terms[predicate])


@cache
def follows(first: Statement, second: Statement, conclusion: Statement) -> bool:
    """Whether the conclusion holds in every world in which both premises hold.

    A world states for each of the 8 combinations of three properties whether anything has it. All 256
    worlds are checked.
    """
    return all(_holds(conclusion, world) for world in range(256) if _holds(first, world) and _holds(second, world))


def _holds(statement: Statement, world: int) -> bool:
    form, subject, predicate = statement
    inhabited = [kind for kind in range(8) if world >> kind & 1 and kind >> subject & 1]  # of the subject
    if form in ("all", "not"):
        return any(not kind >> predicate & 1 for kind in inhabited) == (form == "not")
    return any(kind >> predicate & 1 for kind in inhabited) == (form == "some")
