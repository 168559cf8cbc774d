"""Sums of long numbers."""

from __future__ import annotations

import operator
import random
from typing import Any

from r1ray.errors import ConfigError
from r1ray.tasks.answers import integer
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw, span

_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class ArithmeticTask:
    """`What is 4821 + 307?`"""

    def __init__(self, digits: Any = (2, 4), operations: str = "+-*") -> None:
        """`digits` of each operand, [least, most]. `operations`: some of + - *, drawn with equal probability."""
        self._digits = span("arithmetic", "digits", digits, 1, 12)
        if not operations or not set(operations) <= set(_OPERATORS):
            raise ConfigError(
                f"the task arithmetic: operations: expected some of {''.join(_OPERATORS)}, got {operations!r}"
            )
        self._operations = operations

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("arithmetic", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate:
        sign = rng.choice(self._operations)
        a, b = self._number(rng), self._number(rng)
        low, high = sorted((a, b))  # a - b and b - a have one key, because each reveals the other
        return Candidate(
            key=f"{low} {sign} {high}", prompt=f"What is {a} {sign} {b}?", answer=str(_OPERATORS[sign](a, b))
        )

    def _number(self, rng: random.Random) -> int:
        digits = rng.randint(*self._digits)
        return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        return integer(answer) == int(truth)
