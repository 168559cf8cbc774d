"""Decipher texts in which two letters encode one."""

from __future__ import annotations

import random
from typing import Any

from r1ray.tasks.answers import words
from r1ray.tasks.base import Problem, Split
from r1ray.tasks.seeded import Candidate, draw, span
from r1ray.tasks.vocabulary import SHORT_WORDS

_A = ord("a") - 1


class CipherTask:
    """A deciphered example, then a text to decipher. Each letter is the middle of its pair: c may be `bd` or `ea`."""

    def __init__(self, words: Any = (2, 3), example_words: int = 4) -> None:
        """`words`: of the text, [least, most]. `example_words`: of the example, one number."""
        self._words = span("cipher", "words", words, 1, 8)
        self._example_words = span("cipher", "example_words", example_words, 1, 16)[0]

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """See SyntheticTask."""
        return draw("cipher", index, split, seed, self._make)

    def _make(self, rng: random.Random) -> Candidate:
        text = " ".join(rng.choices(SHORT_WORDS, k=rng.randint(*self._words)))
        example = " ".join(rng.choices(SHORT_WORDS, k=self._example_words))
        return Candidate(
            key=text,
            prompt=f'The cipher "{encipher(example, rng)}" stands for "{example}". '
            f'By the same rule, what does "{encipher(text, rng)}" stand for?',
            answer=text,
        )

    def check(self, answer: str, truth: Any) -> bool:
        """See SyntheticTask."""
        return words(answer) == str(truth).split()


def encipher(text: str, rng: random.Random) -> str:
    """Encode each letter of a lower-case text as two whose positions in the alphabet average to its own."""
    pairs = []
    for char in text:
        if char == " ":
            pairs.append(char)
            continue
        place = ord(char) - _A
        room = min(place - 1, 26 - place)
        step = rng.randint(-room, room)
        pairs.append(chr(_A + place - step) + chr(_A + place + step))
    return "".join(pairs)
