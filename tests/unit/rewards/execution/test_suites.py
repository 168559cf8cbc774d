"""The time of a program: each test has its limit, all together a larger one that grows with their number and ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from r1ray.config.schema import RewardConfig, RewardWorkerConfig
from r1ray.errors import ConfigError
from r1ray.rewards.base import Call, Sample
from r1ray.rewards.execution.code import CodeVerifier
from r1ray.rewards.scorer import Judged, Scorer

ONE_S = 1.0
"""`reward_worker.timeout_s` here: less than the many tests of a right program take."""


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    # Nothing foreign runs here, and the limits are the same with and without a sandbox.
    params = {"verifier": "code", "test_timeout_s": 2.0, "suite_timeout_s": 30.0}
    short = {**params, "suite_timeout_s": 2.0, "partial": True}
    rewards = [RewardConfig(name="accuracy/long", params=params), RewardConfig(name="accuracy/short", params=short)]
    sources = {"long": ["accuracy/long"], "short": ["accuracy/short"]}
    made = Scorer(rewards, RewardWorkerConfig(timeout_s=ONE_S, sandbox="none"), source_rewards=sources)
    yield made
    made.close()


def judged(scorer: Scorer, program: str, tests: object, task: str = "long") -> tuple[Judged, float]:
    began = time.monotonic()
    sample = Sample(response=f"```python\n{program}\n```", answer=tests, task=task)
    return scorer.begin(sample).result(), time.monotonic() - began


def stdio(number: int) -> list[dict[str, str]]:
    return [{"stdin": f"{n}\n", "stdout": f"{n}\n"} for n in range(number)]


def calls(number: int) -> dict[str, object]:
    return {"function": "f", "calls": [{"args": [n], "expected": n} for n in range(number)]}


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("import time\ntime.sleep(0.2)\nprint(input())", stdio(10)),
        ("import time\ndef f(n):\n    time.sleep(0.3)\n    return n", calls(12)),
    ],
)
def test_many_tests_do_not_time_out_together(scorer: Scorer, program: str, tests: object) -> None:
    result, seconds = judged(scorer, program, tests)
    assert (result.score.reward, result.score.error, result.notes) == (1.0, None, {})
    assert seconds > 2 * ONE_S


@pytest.mark.parametrize(
    ("program", "tests"),
    [("while True: pass", stdio(40)), ("def f(n):\n    while n > 1: pass\n    return n", calls(40))],
)
def test_hanging_test_stops_the_suite(scorer: Scorer, program: str, tests: object) -> None:
    result, seconds = judged(scorer, program, tests)
    assert result.score.reward == 0.0
    assert result.notes["accuracy/long"].endswith("of 40: timeout")
    assert seconds < 15.0


def test_suite_timeout_bounds_hanging_tests(scorer: Scorer) -> None:
    result, seconds = judged(scorer, "while True: pass", stdio(1000), task="short")
    assert (result.score.reward, result.score.error) == (0.0, None)
    assert seconds < 10.0


def test_suite_limit_grows_with_the_tests() -> None:
    def limit(number: int) -> float:
        call = CodeVerifier()(Sample(response="x = 1", answer=stdio(number)))
        assert isinstance(call, Call)
        return call.limit_s

    assert [limit(n) for n in (1, 4, 40, 4000)] == [5.0, 20.0, 60.0, 60.0]
    with pytest.raises(ConfigError, match="suite_timeout_s = 1"):
        CodeVerifier(suite_timeout_s=1.0)
