"""Repetition reward: the share of n-grams of a response that occurred before."""

from __future__ import annotations

import re
from dataclasses import dataclass

from r1ray.errors import ConfigError
from r1ray.rewards.base import Reward, Sample

_MAX_CHARS = 1 << 16
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition(Reward):
    """Minus the share of n-grams that occurred before, in [-1, 0]: 0 if all differ, near -1 for a loop.

    The units are words and punctuation marks, in Chinese and Japanese characters. Of a long response
    only the end counts.
    """

    n: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.n <= 64:
            raise ConfigError(f"repetition: n (words of an n-gram): expected 1 to 64, got {self.n}")

    def __call__(self, sample: Sample) -> float:
        """See Reward. A value in [-1, 0]."""
        words = _WORD.findall(sample.response[-_MAX_CHARS:].casefold())
        grams = [tuple(words[i : i + self.n]) for i in range(len(words) - self.n + 1)]
        return len(set(grams)) / len(grams) - 1.0 if grams else 0.0
