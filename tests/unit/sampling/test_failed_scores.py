"""When a sampling job reports that its samples cannot be scored."""

from __future__ import annotations

from typing import Any

from r1ray.run.notices import notice
from r1ray.sampling.failed_scores import FailedScores
from r1ray.types import Score

GOOD = Score(reward=1.0, parts={"accuracy": 1.0})


def bad(n: int, kind: str = "VerifierCrash: own: KeyError: 'gold'") -> Score:
    return Score(reward=0.0, parts={}, error=f"{kind} in sample {n}", error_kind=kind)


def collect() -> tuple[FailedScores, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return FailedScores(lambda kind, **fields: events.append({"kind": kind, **fields})), events


def test_a_reward_that_fails_on_every_sample_is_reported_once_with_its_reason() -> None:
    failed, events = collect()
    for n in range(7):
        failed.add([bad(n)] * 4)
    assert events == []
    failed.add([bad(7)] * 3 + [bad(7, "VerifierTimeout: own: no verdict within N s")])
    failed.add([bad(8)] * 4)
    (event,) = events
    assert event["share"] == 1.0
    assert event["reasons"] == {
        "VerifierCrash: own: KeyError: 'gold'": 31,
        "VerifierTimeout: own: no verdict within N s": 1,
    }
    line = "32 of 32 samples (100%) could not be scored, most often: VerifierCrash: own: KeyError: 'gold'"
    assert notice(event) == line


def test_less_than_half_is_not_reported_and_half_is() -> None:
    failed, events = collect()
    failed.add([GOOD] * 33 + [bad(0)] * 32)
    assert events == []
    failed.add([bad(1)])
    assert [event["share"] for event in events] == [0.5]
