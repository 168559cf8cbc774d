"""Insert parentheses so that an equation holds."""

from __future__ import annotations

import random
from typing import Any

from r1ray.tasks.base import Problem, Split
from r1ray.tasks.expression import evaluate, solves, tokenise
from r1ray.tasks.seeded import Candidate, at_least, draw, span


class ParenthesesTask:
    """`Insert parentheses into 7 - 2 * 3 + 1 = 20`: any placement that makes the equation true is right.

    Without parentheses the equation is false.
    """

    def __init__(self, numbers: Any = (4, 6), max_number: int = 9, max_value: int = 200) -> None:
        """`numbers`: how many, [least, most], each at most `max_number`; the value is within +-`max_value`."""
        self._count = span("parentheses", "numbers", numbers, 3, 10)
        self._max_number = at_least("parentheses", "max_number", max_number, 3)
        self._max_value = at_least("parentheses", "max_value", max_value, 9)

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("parentheses", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate | None:
        tokens = [str(rng.randint(1, self._max_number))]
        for _ in range(rng.randint(*self._count) - 1):
            tokens += [rng.choice("+-*"), str(rng.randint(1, self._max_number))]
        value = int(evaluate(_nest(rng, tokens)))
        if value == evaluate(tokens) or abs(value) > self._max_value:
            return None
        expression = " ".join(tokens)
        return Candidate(
            key=f"{expression} = {value}",
            prompt=f"Insert parentheses so that the equation holds: {expression} = {value}. "
            "Answer with the whole equation; numbers and signs stay as they are.",
            answer={"expression": expression, "value": value},
        )

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        tokens = solves(answer, truth["value"])
        return tokens is not None and [t for t in tokens if t not in "()"] == tokenise(truth["expression"])


def _nest(rng: random.Random, tokens: list[str]) -> list[str]:
    """The same expression, fully parenthesised at random."""
    if len(tokens) == 1:
        return tokens
    split = rng.randrange(1, len(tokens), 2)
    return ["(", *_nest(rng, tokens[:split]), tokens[split], *_nest(rng, tokens[split + 1 :]), ")"]
