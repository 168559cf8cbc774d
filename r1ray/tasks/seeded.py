"""Helpers of the synthetic tasks: seeded draws with disjoint splits, and checks of parameters."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1ray.errors import ConfigError
from r1ray.tasks.base import Problem, Split

_HELDOUT_SHARE = 8
_ATTEMPTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A problem whose split is not yet determined."""

    key: str  # identity of the problem, the same for all rephrasings (such as operands in another order)
    prompt: str
    answer: Any  # msgpack types
    meta: dict[str, Any] = field(default_factory=dict)  # of the Problem


def draw(task: str, index: int, split: Split, seed: int, make: Callable[[random.Random], Candidate | None]) -> Problem:
    """The first candidate of `split` in the random stream that (task, seed, split, index) names.

    `make` returns a candidate, or None to draw again. A hash holds out one key in eight, whatever the
    seed and the parameters, so no training problem occurs in the held-out split. Raises ConfigError
    if the parameters leave the split without problems.
    """
    rng = random.Random(_digest(f"{task}/{seed}/{split}/{index}"))
    for _ in range(_ATTEMPTS):
        candidate = make(rng)
        if candidate is not None and is_heldout(task, candidate.key) == (split == "heldout"):
            name = f"{task}-{_digest(candidate.prompt):016x}"
            return Problem(prompt_id=name, prompt=candidate.prompt, answer=candidate.answer, meta=candidate.meta)
    raise ConfigError(f"the task {task} has no {split} problem in {_ATTEMPTS} draws: widen its params")


def is_heldout(task: str, key: str) -> bool:
    """Whether the problem with this key belongs to the held-out split."""
    return _digest(f"{task}/{key}") % _HELDOUT_SHARE == 0


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def span(task: str, name: str, value: Any, low: int, high: int) -> tuple[int, int]:
    """A parameter that is a range [least, most] within [low, high], or one number for both. Raises ConfigError."""
    ends = [value, value] if isinstance(value, int) else value
    fits = isinstance(ends, Sequence) and len(ends) == 2 and all(isinstance(e, int) for e in ends)
    if not fits or not low <= ends[0] <= ends[1] <= high:
        raise ConfigError(f"the task {task}: {name}: expected [least, most] within {low} to {high}, got {value!r}")
    return ends[0], ends[1]


def at_least(task: str, name: str, value: Any, low: int) -> int:
    """A parameter that is an integer >= `low`. Raises ConfigError."""
    if not isinstance(value, int) or value < low:
        raise ConfigError(f"the task {task}: {name}: expected an integer >= {low}, got {value!r}")
    return value
