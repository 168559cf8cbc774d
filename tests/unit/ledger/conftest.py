"""A ledger in a fast folder, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from r1ray.ledger.ledger import Ledger
from tests.unit.ledger_support import Clock, fast_folder, new_ledger

Make = Callable[..., Ledger]


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as path:
        yield path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(folder: Path, clock: Clock) -> Iterator[Make]:
    made: list[Ledger] = []

    def build(**changes: object) -> Ledger:
        made.append(new_ledger(folder, clock, **changes))
        return made[-1]

    yield build
    for ledger in made:
        ledger.close()
