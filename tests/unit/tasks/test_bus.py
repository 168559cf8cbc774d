"""The bus problem: exact answers, splits that stay apart, hostile answers."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ray.data.templates import render as render_prompt
from r1ray.errors import ConfigError
from r1ray.tasks import get_task
from r1ray.tasks.bus import BusTask, numbers, render

changes = st.integers(-9, 9).filter(bool)


def test_the_worked_example() -> None:
    assert render([7, 5, -3, 8]) == "bus 7 A+5 B-3 C+8"
    assert numbers("bus 7 A+5 B-3 C+8") == [7, 5, -3, 8]


def test_the_template_plain_gives_the_prompt_that_the_base_model_was_trained_on() -> None:
    class NoTokenizer:
        eos_token_id = None
        chat_template = None

    prompt = render_prompt("plain", render([7, 5, -3, 8]), NoTokenizer())  # type: ignore[arg-type]
    assert prompt == "User: bus 7 A+5 B-3 C+8\nAssistant:"


@given(st.integers(1, 9), st.lists(changes, min_size=1, max_size=26))
def test_numbers_reads_what_render_writes(start: int, rest: list[int]) -> None:
    assert numbers(render([start, *rest])) == [start, *rest]


def test_the_bus_is_never_emptier_than_empty_and_the_answer_is_who_is_left() -> None:
    task = BusTask(n=(4, 7))
    lengths = set()
    for index in range(500):
        problem = task.problem(index, "train", seed=3)
        totals = list(accumulate(numbers(problem.prompt)))
        assert min(totals) >= 0
        assert problem.answer == str(totals[-1])
        lengths.add(len(totals))
    assert lengths == {4, 5, 6, 7}


def test_no_problem_is_in_both_splits_whatever_the_seed_and_the_lengths() -> None:
    train = {BusTask(n=(2, 5)).problem(i, "train", seed).prompt for i in range(1500) for seed in (0, 1)}
    heldout = {BusTask(n=n).problem(i, "heldout", 7).prompt for i in range(700) for n in ((2, 3), (2, 5))}
    assert len(train) > 1000
    assert len(heldout) > 100
    assert not train & heldout


def test_one_problem_in_eight_is_held_out() -> None:
    every = [render([start, a, b]) for start in range(1, 10) for a in range(1, 10) for b in range(1, 10)]
    task = BusTask(n=3)
    heldout = {task.problem(i, "heldout", 0).prompt for i in range(6000)}
    assert sum(prompt in heldout for prompt in every) / len(every) == pytest.approx(1 / 8, abs=0.03)


@pytest.mark.parametrize("answer", ["17", " 17\n", "+17", "017"])
def test_right_answers(answer: str) -> None:
    assert BusTask().check(answer, "17")


@pytest.mark.parametrize(
    "answer",
    ["", "18", "17.5", "7+10", "seventeen", "17 people", "1e1", "0x11", "١٧", "1" * 100_000, "17" + "\0", "17\n18"],
)
def test_wrong_and_hostile_answers(answer: str) -> None:
    assert not BusTask().check(answer, "17")


@pytest.mark.parametrize("n", [1, 28, (7, 4), "4", (4, 7, 9), None])
def test_bad_parameters_are_named(n: Any) -> None:
    with pytest.raises(ConfigError, match="the task bus: n: expected"):
        get_task("bus", {"n": n})
