"""The bottleneck of a run, by a model of its step."""

from __future__ import annotations

from typing import Any

import pytest

from r1ray.run.bottleneck import Bottleneck, find_bottleneck


def rows(steps: int = 8, **changes: float) -> list[dict[str, Any]]:
    row = {
        "learner/step_s": 1.9,
        "batch/wait_s": 0.0,
        "sync/seconds": 0.1,
        "time/step_s": 2.0,
        "rollout/idle_share": 0.5,
    }
    return [
        {"step": step, **row, **{key.replace("__", "/"): value for key, value in changes.items()}}
        for step in range(steps)
    ]


def found(rows: list[dict[str, Any]], ranks: int = 1, together: int = 1) -> Bottleneck | None:
    return find_bottleneck(rows, ranks=ranks, workers=1, max_staleness=1, sequence_parallel=together)


@pytest.mark.parametrize(
    ("changes", "name", "gain", "remedy"),
    [
        ({}, "learner-bound", 2.0 / 1.05, "a second rank (learner.ranks=2) would give up to 1.9x"),
        (
            {"learner__step_s": 0.8, "batch__wait_s": 1.1, "rollout__idle_share": 0.0},
            "rollout-bound",
            2.0,
            "a second rollout worker (rollout.workers=2) would give up to 2.0x",
        ),
        ({"learner__step_s": 0.4, "sync__seconds": 1.6}, "sync-bound", 2.0 / 1.2, "half the time of weight syncs"),
        (
            {"learner__step_s": 0.8, "batch__wait_s": 1.1, "rollout__idle_share": 0.5},
            "waiting for each other",
            2.0,
            "queue.max_staleness=2",
        ),
        ({"rollout__idle_share": 0.01}, "balanced", 1.0, "only more of both sides"),
    ],
)
def test_the_part_whose_remedy_gains_most(changes: dict[str, float], name: str, gain: float, remedy: str) -> None:
    limit = found(rows(**changes))
    assert limit is not None
    assert (limit.name, limit.gain) == (name, pytest.approx(gain))
    assert remedy in limit.text


def test_of_four_ranks_one_more_gains_a_fifth_of_the_training() -> None:
    limit = found(rows(), ranks=4)
    assert limit is not None
    assert limit.gain == pytest.approx(2.0 / (2.0 - 1.9 / 5))
    assert "one more rank (learner.ranks=5)" in limit.text


def test_a_replay_has_a_learner_only() -> None:
    """Of 2.0 s it trains 1.8: a second rank halves these."""
    steps = [{"step": i, "learner/step_s": 1.8, "batch/wait_s": 0.1, "time/step_s": 2.0} for i in range(8)]
    limit = find_bottleneck(steps, ranks=1, workers=0, max_staleness=1)
    assert limit is not None
    assert (limit.name, limit.gain) == ("learner-bound", pytest.approx(2.0 / 1.1))
    assert "trains 90% and waits for its batch 5%; a second rank (learner.ranks=2) would give up to 1.8x" in limit.text


def test_a_few_steps_say_nothing_and_the_first_one_does_not_count() -> None:
    assert found(rows(3)) is None
    slow_start = [*rows(1, learner__step_s=90.0, time__step_s=90.0), *rows(3)]
    limit = found(slow_start)
    assert limit is not None
    assert "a step takes 2.0 s" in limit.text


def test_steps_of_runs_without_these_metrics_are_left_out() -> None:
    assert found([{"step": step, "sft/loss": 1.0} for step in range(9)]) is None


def test_ranks_that_compute_rows_together_are_added_together() -> None:
    limit = found(rows(), ranks=4, together=2)
    assert limit is not None
    assert limit.gain == pytest.approx(2.0 / (2.0 - 1.9 / 3))
    assert "one more group of 2 ranks (learner.ranks=6)" in limit.text
