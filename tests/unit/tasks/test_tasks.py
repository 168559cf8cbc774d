"""What holds for every synthetic task."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ray.config.rules import TASK_VERIFIERS
from r1ray.errors import ConfigError, VerifierError
from r1ray.tasks import TASKS, get_task

NAMES = list(TASKS)
JUDGED_BY_CHECK = [name for name in NAMES if name not in TASK_VERIFIERS]
N = 150
SMALL_WORLDS = {"courtesy": 20}
"""Task -> distinct held-out prompts expected of one that has fewer than N in all: courtesy has 6 requests x 26 people.
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_is_a_function_of_its_arguments(name: str) -> None:
    one, other = get_task(name, {}), get_task(name, {})
    problems = [one.problem(i, "train", 3) for i in range(20)]
    assert problems == [other.problem(i, "train", 3) for i in range(20)]
    assert problems != [other.problem(i, "train", 4) for i in range(20)]
    assert len({p.prompt for p in problems}) > 15
    assert one.problem(1 << 50, "train", 3).prompt


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_disjoint_across_seeds(name: str) -> None:
    task = get_task(name, {})
    train = {task.problem(i, "train", seed).prompt for i in range(N) for seed in (0, 1)}
    heldout = {task.problem(i, "heldout", seed).prompt for i in range(N) for seed in (0, 1)}
    assert len(heldout) > SMALL_WORLDS.get(name, N)
    assert train.isdisjoint(heldout)


@pytest.mark.parametrize("name", NAMES)
def test_problems_travel(name: str) -> None:
    problem = get_task(name, {}).problem(0, "train", 0)
    assert msgpack.unpackb(msgpack.packb([problem.answer, problem.meta])) == [problem.answer, problem.meta]
    assert problem.prompt_id.startswith(f"{name}-")


HOSTILE = [
    "",
    " ",
    "\0",
    "(" * 1_000_000,
    "9" * 1_000_000,
    "9**9**9",
    "1/0",
    "((((((((((",
    "-" * 1999,
    "1+" * 999 + "1",
    "__import__('os').system('true')",
    "½",
    "٣",
    "None",
    "= 5",
    "=",
    "A: knight, " * 100_000,
    "a" * 10_000_000,
]


@pytest.mark.parametrize("name", JUDGED_BY_CHECK)
def test_hostile_answers_are_wrong_and_quick(name: str) -> None:
    task = get_task(name, {})
    truth = task.problem(0, "train", 0).answer
    assert [answer[:30] for answer in HOSTILE if task.check(answer, truth)] == []


@given(st.text(max_size=40) | st.text(alphabet="0123456789+-*/()= \n", max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_gets_a_verdict(answer: str) -> None:
    for name in JUDGED_BY_CHECK:
        task = get_task(name, {})
        assert task.check(answer, task.problem(0, "train", 0).answer) in (True, False)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("nights", {}, r"no synthetic task 'nights' \(did you mean 'knights'"),
        ("arithmetic", {"digits": [4, 2]}, r"digits: expected \[least, most\] within 1 to 12, got \[4, 2\]"),
        ("arithmetic", {"digits": "4"}, "digits: .* got '4'"),
        ("arithmetic", {"operations": "+%"}, "operations: expected"),
        ("countdown", {"numbers": 1}, "within 2 to 8"),
        ("countdown", {"max_number": 0}, "max_number: expected an integer >= 9, got 0"),
        ("parentheses", {"max_value": 1.5}, r"max_value: expected an integer >= 9, got 1\.5"),
        ("cipher", {"words": 0}, "within 1 to 8"),
        ("candles", {"candles": 99}, "within 2 to 26"),
        ("knights", {"peple": 2}, r"did you mean 'people'"),
        ("syllogism", {"terms": 3}, "no parameter 'terms'"),
        ("transpose", {"max_side": 1}, "max_side = 1"),
        ("writing", {"words": 0}, r"words: expected \[least, most\] within 1 to 1000"),
        ("writing", {"words": [5, 9], "width": 5}, "width: expected .* within 0 to 4"),
    ],
)
def test_bad_parameters_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_task(name, params)


def test_parameters_that_leave_no_problem_are_refused() -> None:
    task = get_task("countdown", {"numbers": 8, "max_target": 9, "max_number": 999_999_999})
    with pytest.raises(ConfigError, match="no train problem in 10000 draws: widen its params"):
        task.problem(0, "train", 0)


def test_a_script_is_no_matter_for_check() -> None:
    task = get_task("transpose", {})
    problem = task.problem(0, "train", 0)
    assert problem.meta == {"verifier": "code"}
    with pytest.raises(VerifierError, match="use the code verifier"):
        task.check("echo", problem.answer)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("examples.own_task:ReversalTask", {"leters": 4}, "no parameter 'leters' .did you mean 'letters'"),
        ("examples.own_task:ReversalTask", {"letters": 2}, "letters = 2, expected 3 to 20"),
        ("examples.own_task:Reversal", {}, "the task examples.own_task:Reversal cannot be imported"),
        ("os:system", {"command": "true"}, "expected a class with the methods problem and check"),
        ("pathlib:Path", {}, "expected a class with the methods problem and check"),
    ],
)
def test_user_defined_task_is_refused_by_name(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_task(name, params)
