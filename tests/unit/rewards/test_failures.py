"""Kinds of scoring failures: equal for equal failures of different samples."""

from __future__ import annotations

import pytest

from r1ray.errors import DataError, VerifierCrash, VerifierTimeout
from r1ray.rewards.base import Sample
from r1ray.rewards.failures import kind, named
from tests.unit.reward_support import reward, scorer

SAMPLE = Sample(response="It's 5 apples.\nDone \\o/", answer={"tests": "print('x')"}, prompt_id="p/7")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (VerifierCrash("KeyError: 'target_language'"), "VerifierCrash: own: KeyError: 'target_language'"),
        (DataError("no unit in '5 apples' (12 of 40)"), "DataError: own: no unit in ... (N of N)"),
        (DataError("""cannot read "It's 5 app"""), "DataError: own: cannot read ..."),
        (DataError(r"bad line 'apples.\nDone \\o/' here"), "DataError: own: bad line ... here"),
        (DataError("the judge's reply has no 'verdict'"), "DataError: own: the judge's reply has no 'verdict'"),
        (
            VerifierCrash(f"KeyError: {'no unit in ' + repr('5 app') + ' of ' + repr('p/7')!r}"),
            'VerifierCrash: own: KeyError: "no unit in ... of ..."',
        ),
        (VerifierCrash(f"KeyError: {repr(chr(10) + 'Done ' + chr(92))!r}"), 'VerifierCrash: own: KeyError: "..."'),
        (
            VerifierCrash("ValueError: no answer in It's 5 apples.\nDone \\o/ at all"),
            "VerifierCrash: own: ValueError: no answer in ... at all",
        ),
        (VerifierTimeout("no verdict within 2.5 s"), "VerifierTimeout: own: no verdict within N s"),
    ],
)
def test_kind_is_without_the_sample(error: DataError, expected: str) -> None:
    assert kind(error, "own", SAMPLE) == expected


def test_exceptions_of_a_reward_have_a_name() -> None:
    assert str(named(ZeroDivisionError("division by zero"))) == "ZeroDivisionError: division by zero"
    assert isinstance(named(ZeroDivisionError()), VerifierCrash)


def test_reward_that_raises_on_every_sample_has_one_kind() -> None:
    with scorer(reward("tests.unit.own_rewards:rejects")) as s:
        pending = [s.begin(Sample(response=f"response {n} of it", answer=n)) for n in range(4)]
        scores = [p.result().score for p in pending]
    assert len({score.error for score in scores}) == 4
    assert {score.error_kind for score in scores} == {
        "VerifierCrash: tests.unit.own_rewards:rejects: ValueError: cannot score ..."
    }
