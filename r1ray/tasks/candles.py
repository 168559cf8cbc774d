"""Candle puzzles: which candle was blown out first?"""

from __future__ import annotations

import random
from typing import Any

from r1ray.tasks.answers import letter
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw, span


class CandlesTask:
    """Candles lit together burn equally fast: the one that has burnt away least was blown out first."""

    def __init__(self, candles: Any = (4, 7), same_length: bool = False) -> None:
        """`candles`: how many, [least, most]. `same_length`: whether all were equally long when lit."""
        self._count = span("candles", "candles", candles, 2, 26)
        self._same_length = same_length

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("candles", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate:
        count = rng.randint(*self._count)
        burnt = rng.sample(range(1, 2 * count + 2), count)  # all different: no two are blown out at once
        longest = 2 * count + 10
        lengths = [longest] * count if self._same_length else [rng.randint(b + 1, longest) for b in burnt]
        left = [length - b for length, b in zip(lengths, burnt, strict=True)]
        if self._same_length:
            at_first = f"each {longest} cm long"
        else:
            at_first = ", ".join(f"{chr(65 + i)} {length} cm long" for i, length in enumerate(lengths))
        rests = ", ".join(f"{chr(65 + i)} {rest} cm" for i, rest in enumerate(left))
        return Candidate(
            key=str(sorted(zip(lengths, left, strict=True))),
            prompt=f"{count} candles, A to {chr(64 + count)}, were lit at the same moment: {at_first}. "
            "All burn equally fast. They were blown out one after another, and this is left of them: "
            f"{rests}. Which was blown out first? Answer with its letter.",
            answer=chr(65 + burnt.index(min(burnt))),
        )

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        return letter(answer, "candle") == str(truth)
