"""Decontamination: find training prompts that share ten consecutive words with an evaluation problem."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from r1ray.types import Message

N = 10
"""Number of consecutive words that two prompts must not share (DeepSeek-R1, supplement: 10-gram decontamination)."""

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""A word; in scripts without spaces (kana, CJK ideographs) a character. Hangul has spaces."""


class Grams:
    """The 10-grams of some prompts. Case and punctuation do not count; a shorter prompt is one gram as a whole."""

    def __init__(self) -> None:
        self._grams: set[str] = set()

    def add_all(self, prompts: Iterable[Sequence[Message]]) -> None:
        """Add the 10-grams of `prompts`."""
        for messages in prompts:
            self._grams.update(_grams(messages))

    def shares(self, messages: Sequence[Message]) -> bool:
        """Whether `messages` shares a 10-gram with the added prompts."""
        return bool(self._grams) and not self._grams.isdisjoint(_grams(messages))


def _grams(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        if message["role"] != "system":
            words = WORD.findall(message["content"].lower())
            if words:
                yield from (" ".join(words[i : i + N]) for i in range(max(1, len(words) - N + 1)))
