"""Room of an engine: how many groups its worker may lease."""

from __future__ import annotations

import math
from collections.abc import Iterable

from actors.requests import Work
from r1ray.config.schema import Config


class Room:
    """Places for `rollout.groups_in_engine` groups, counted by completions.

    An ended completion makes room at once: the others of its group may take several times as long.
    """

    def __init__(self, config: Config) -> None:
        self._groups, self._size = config.rollout.groups_in_engine, config.rollout.group_size
        self._exact = config.run.deterministic
        self._open = 0  # completions of leased groups that have not ended

    def groups(self, leased: int) -> int:
        """To lease now, if `leased` groups are in progress; at most 0 if there is no room.

        In a deterministic run all or none, so that a repeated run has the same engine steps.
        """
        if self._exact:
            return 0 if leased else self._groups
        return self._groups - math.ceil(self._open / self._size)

    def take(self, works: Iterable[Work]) -> None:
        """These were leased."""
        self._open += sum(work.n for work in works)

    def count(self, waiting: Iterable[Work], working: Iterable[Work], unfinished: int) -> None:
        """Count again: `waiting` are not in the engine yet, `working` are, with `unfinished` completions together.

        An evaluation in the engine counts as if none of its completions had ended, so that it takes no place.
        """
        evaluated = sum(work.n for work in working if work.result)
        self._open = sum(work.n for work in waiting if not work.result) + max(0, unfinished - evaluated)
