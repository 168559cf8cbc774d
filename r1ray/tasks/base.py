"""Interface of a synthetic task: seeded problems with an exact checker and disjoint splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem. `answer` and `meta` hold msgpack types only."""

    prompt_id: str
    prompt: str  # the user's words, before any template
    answer: Any  # what `check` compares with
    meta: dict[str, Any] = field(default_factory=dict)


class SyntheticTask(Protocol):
    """A family of problems. The constructor takes the parameters as keywords; wrong ones raise ConfigError."""

    def problem(self, index: int, split: Split, seed: int) -> Problem:
        """The problem at `index`, a pure function of its arguments. No problem of one split occurs in the other."""
        ...

    def check(self, answer: str, truth: Any) -> bool | float:
        """Whether `answer` (the extracted answer text, untrusted) solves the problem whose `Problem.answer` is `truth`.

        A number from 0 to 1 is partial credit; 1 is right.
        """
        ...
