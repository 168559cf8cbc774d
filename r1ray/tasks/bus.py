"""People on a bus: the task of the embedded default.

    bus 7 A+5 B-3 C+8        seven people start; at stop A five get on, at B three get off, at C eight get on: 17

With the template `plain` the model reads "User: bus 7 A+5 B-3 C+8\\nAssistant:". A small model uses
the letters of the stops to find the next number.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any

from r1ray.errors import ConfigError
from r1ray.tasks.answers import integer
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw, span

STOPS = string.ascii_uppercase
WORDS = {"en": "bus", "zh": "公交"}
"""First word of a question, by language code."""

_MOST = 9  # people at the start, or that get on or off at one stop


class BusTask:
    """Adding and subtracting in a chain, one digit at a time; the total never falls below zero."""

    def __init__(self, n: Any = (4, 7), languages: Any = ()) -> None:
        """`n`: count of numbers in a problem, including the start, [least, most]. `languages`: codes of WORDS.

        With `languages`, each question is in one of them, drawn with equal probability, and names its
        target language. Without, questions are in English.
        """
        self._n = span("bus", "n", n, 2, 1 + len(STOPS))
        if not isinstance(languages, list | tuple) or not set(languages) <= set(WORDS):
            raise ConfigError(
                f"the task bus: languages: expected a list of {', '.join(WORDS)}, e.g. [en, zh], got {languages!r}"
            )
        self._languages = tuple(languages)

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask. All the numbers together decide the split."""
        return draw("bus", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate:
        numbers = [total := rng.randint(1, _MOST)]
        for _ in range(rng.randint(*self._n) - 1):
            change = rng.choice([c for c in range(-_MOST, _MOST + 1) if c and total + c >= 0])
            numbers.append(change)
            total += change
        key = render(numbers)
        if not self._languages:
            return Candidate(key=key, prompt=key, answer=str(total))
        language = rng.choice(self._languages)
        prompt = render(numbers, language)
        # One key for all languages: a problem held out in one is held out in the other.
        return Candidate(key=key, prompt=prompt, answer=str(total), meta={"target_language": language})

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        return integer(answer) == int(truth)


def render(numbers: Sequence[int], language: str = "en") -> str:
    """The problem with these numbers: the people at the start, then the change at each stop."""
    start, *changes = numbers
    return " ".join(
        [WORDS[language], str(start), *(f"{stop}{change:+d}" for stop, change in zip(STOPS, changes, strict=False))]
    )


def numbers(prompt: str) -> list[int]:
    """The numbers of a rendered problem: `numbers("bus 7 A+5 B-3") == [7, 5, -3]`."""
    return [int(word.lstrip(STOPS)) for word in prompt.split()[1:]]
