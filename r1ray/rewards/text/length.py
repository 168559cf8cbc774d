"""Rewards for the length of a response, in tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Ask, Call, Reward, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Length(Reward):
    """Soft punishment of overlong responses, in [-1, 0] (DAPO, arXiv 2503.14476, equation 13).

    0 up to `max_tokens - buffer_tokens`, then falling linearly to -1 at `max_tokens`, and -1 beyond.
    """

    buffer_tokens: int
    max_tokens: int | None = None  # null: the limit at sampling

    def __post_init__(self) -> None:
        if self.buffer_tokens < 1 or (self.max_tokens is not None and self.max_tokens <= self.buffer_tokens):
            raise ConfigError(
                f"length: buffer_tokens: expected at least 1 and less than max_tokens = {self.max_tokens}, got "
                f"{self.buffer_tokens}"
            )

    def __call__(self, sample: Sample) -> float:
        """See Reward. A value in [-1, 0]. Raises DataError if the number of tokens is unknown."""
        tokens, limit = _lengths(sample, self.max_tokens)
        return max(-1.0, min(0.0, (limit - self.buffer_tokens - tokens) / self.buffer_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineLength(Reward):
    """A verifier's verdict, shaped by length (Yeo et al., arXiv 2502.03373): short is best if right, worst if wrong.

    `correct` and `wrong` are the values at length 0 and at `max_tokens`, connected by half a cosine.
    `exceeded` is the value of a response that reaches `max_tokens`. The defaults are the paper's.
    """

    inner: Reward  # the verifier; partial credit of at least 0.5 counts as right
    correct: tuple[float, float] = (2.0, 1.0)
    wrong: tuple[float, float] = (-10.0, 0.0)
    exceeded: float = -10.0
    max_tokens: int | None = None  # null: the limit at sampling

    def __call__(self, sample: Sample) -> float | Call | Ask:
        """See Reward. The shaped verdict. Raises DataError if the number of tokens is unknown."""
        tokens, limit = _lengths(sample, self.max_tokens)
        if tokens >= limit:
            return self.exceeded

        def shaped(verdict: float) -> float:
            short, long = self.correct if verdict >= 0.5 else self.wrong
            return long + 0.5 * (short - long) * (1.0 + math.cos(math.pi * tokens / limit))

        verdict = self.inner(sample)
        if isinstance(verdict, Call | Ask):
            return verdict.followed_by(shaped)
        return shaped(verdict)

    @property
    def preload(self) -> tuple[str, ...]:
        """See Reward."""
        return self.inner.preload

    @property
    def sandboxed(self) -> bool:
        """See Reward."""
        return self.inner.sandboxed


def _lengths(sample: Sample, max_tokens: int | None) -> tuple[int, int]:
    limit = max_tokens or sample.max_new_tokens
    if sample.tokens is None or limit is None:
        raise DataError(
            "the number of tokens or their limit is unknown: add `tokens` to the row, and max_tokens to the reward"
        )
    return sample.tokens, limit
