"""The countdown game: reach a number from a few given ones."""

from __future__ import annotations

import random
from typing import Any

from r1ray.tasks.base import Problem, Split
from r1ray.tasks.expression import solves
from r1ray.tasks.seeded import Candidate, at_least, draw, span


class CountdownTask:
    """`Make 117 from 3, 8, 25, each used exactly once, ...`: always solvable, and every right expression counts."""

    def __init__(self, numbers: Any = (3, 4), max_number: int = 99, max_target: int = 999) -> None:
        """`numbers`: how many, [least, most], each at most `max_number`; the target is at most `max_target`."""
        self._count = span("countdown", "numbers", numbers, 2, 8)
        self._max_number = at_least("countdown", "max_number", max_number, 9)
        self._max_target = at_least("countdown", "max_target", max_target, 9)

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("countdown", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate | None:
        numbers = [rng.randint(1, self._max_number) for _ in range(rng.randint(*self._count))]
        target = _combine(rng, numbers)
        if not 1 <= target <= self._max_target or target in numbers:
            return None
        given = ", ".join(map(str, numbers))
        return Candidate(
            key=f"{sorted(numbers)} {target}",
            prompt=f"Make {target} from the numbers {given}, each used exactly once, with +, -, *, / and parentheses. "
            "Answer with the expression alone.",
            answer={"numbers": numbers, "target": target},
        )

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        tokens = solves(answer, truth["target"])
        return tokens is not None and sorted(int(t) for t in tokens if t.isdigit()) == sorted(truth["numbers"])


def _combine(rng: random.Random, numbers: list[int]) -> int:
    """The value of a random expression that uses each number once and has no fractional subresult."""
    pool = list(numbers)
    while len(pool) > 1:
        rng.shuffle(pool)
        a, b = pool.pop(), pool.pop()
        choices = [a + b, a - b, a * b]
        if b != 0 and a % b == 0:
            choices.append(a // b)
        pool.append(rng.choice(choices))
    return pool[0]
