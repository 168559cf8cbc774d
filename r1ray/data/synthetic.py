"""Synthetic tasks as a source of rows."""

from __future__ import annotations

from collections import Counter

from r1ray.config.schema import SourceConfig
from r1ray.data.framing import FramedRow, Framer
from r1ray.data.rows import Row
from r1ray.errors import ConfigError
from r1ray.tasks import get_task
from r1ray.tasks.base import Split

_ATTEMPTS = 64
_STRIDE = 1 << 40
"""Distance of problem numbers between attempts at a place; no run has so many places."""


class SyntheticRows:
    """Problems of one split, generated on demand. Endless unless the source has a limit."""

    def __init__(self, source: SourceConfig, split: Split, framer: Framer, seed: int) -> None:
        assert source.path is not None, "the configuration's checks refuse a source without a path"
        self._task = get_task(source.path, source.params)
        self._source = source
        self._split = split
        self._framer = framer
        self._seed = seed
        self.length = source.limit
        self.dropped: Counter[str] = Counter()

    def framed(self, place: int) -> FramedRow:
        """The problem at `place`. A problem that is too long is replaced by one that no other place draws."""
        for attempt in range(_ATTEMPTS):
            problem = self._task.problem(place + attempt * _STRIDE, self._split, self._seed)
            row = Row(
                row_id=problem.prompt_id,
                messages=({"role": "user", "content": problem.prompt},),
                answer=problem.answer,
                meta={"synthetic": self._source.path, "params": self._source.params, **problem.meta},
            )
            if (framed := self._framer.frame(row)) is not None:
                return framed
            self.dropped["too_long"] += 1
        raise ConfigError(
            f"{_ATTEMPTS} consecutive problems of the source {self._source.name} are longer than "
            "data.max_prompt_tokens: raise it, or choose smaller problems with the source's params"
        )
