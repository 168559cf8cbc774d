"""Room of an engine, counted by completions."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from actors.requests import Work
from actors.room import Room
from r1ray.config.schema import Config
from r1ray.types import Sampling
from tests.unit.scripted import prompt


def config(*, deterministic: bool = False) -> Config:
    made = Config()
    made.rollout.group_size, made.rollout.groups_in_engine, made.run.deterministic = 4, 3, deterministic
    return made


def work(n: int, *, evaluation: bool = False) -> Work:
    return Work(prompt(), Sampling(temperature=1.0), 0.0, 0.0, "g", n, Future() if evaluation else None)


def test_ended_completions_of_unfinished_groups_make_room() -> None:
    room, works = Room(config()), [work(4), work(4), work(4)]
    assert room.groups(leased=0) == 3
    room.take(works)
    assert room.groups(leased=3) == 0
    for unfinished, free in ((12, 0), (9, 0), (8, 1), (5, 1), (4, 2), (3, 2), (1, 2), (0, 3)):
        room.count([], works, unfinished)
        assert room.groups(leased=3) == free


def test_groups_that_wait_for_the_engine_take_their_places() -> None:
    room = Room(config())
    room.take([work(4), work(4)])
    room.count([work(4)], [work(4)], unfinished=2)
    assert room.groups(leased=2) == 1


@pytest.mark.parametrize("ended", [0, 3, 5])
def test_evaluations_take_no_place(ended: int) -> None:
    room, evaluation = Room(config()), work(5, evaluation=True)
    room.take([work(4)])
    room.count([evaluation], [work(4), evaluation], unfinished=4 + 5 - ended)
    assert 2 <= room.groups(leased=1) <= 3
    room.count([], [evaluation], unfinished=5 - ended)
    assert room.groups(leased=0) == 3


def test_a_deterministic_run_leases_all_or_none() -> None:
    room, works = Room(config(deterministic=True)), [work(4), work(4)]
    assert room.groups(leased=0) == 3
    room.take(works)
    room.count([], works, unfinished=1)
    assert room.groups(leased=1) == 0
