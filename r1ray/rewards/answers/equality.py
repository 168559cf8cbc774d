"""Whether two expressions are the same answer, decided in a process that is killed if it takes too long."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from r1ray.errors import VerifierError
from r1ray.rewards.base import Call
from r1ray.rewards.workers.pool import Pool

LIMIT_S = 2.0
"""Time limit of one comparison."""


class Equality:
    """Compares two texts when called. Starts its processes at the first call; `with` ends them.

    What cannot be decided, in time or at all, counts as different: the two remain two answers in a vote.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._pool = Pool(["r1ray.rewards.answers.symbolic:warm_up"], 1)
        self._limit_s = limit_s

    def __call__(self, one: str, other: str) -> bool:
        """Whether the two are the same answer; False if that cannot be decided within the limit."""
        call = Call(function="r1ray.rewards.answers.symbolic:equivalent", args={"truth": one, "answers": [other]})
        try:
            return self._pool.call(call, self._limit_s).value == 1.0
        except VerifierError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()
