"""Figures of an evaluation against numbers worked out by hand, and how parts are handed out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from r1ray.codec import pack_scored
from r1ray.config.schema import Config, SourceConfig
from r1ray.control.evaluator import PART, Evaluator
from r1ray.control.work_dispatcher import ATTEMPTS
from r1ray.errors import RetryBudgetExhausted
from r1ray.rewards.answers.summary import mean_and_error, summarise
from r1ray.types import Score
from tests.unit.scripted import FakeHandle, scored


def test_mean_and_standard_error_by_hand() -> None:
    # deviations -0.5, 0, 0.5: sum of squares 0.5; / (3 * 2) = 1/12
    mean, error = mean_and_error([0.0, 0.5, 1.0])
    assert mean == 0.5
    assert error == pytest.approx(math.sqrt(1 / 12))
    assert mean_and_error([0.25]) == (0.25, 0.0)


def test_figures_of_samples_and_greedy_answers() -> None:
    sampled = [scored(0, rewards=[1.0, 0.0]), scored(1, rewards=[1.0, 1.0])]
    greedy = [scored(0, rewards=[0.0]), scored(1, rewards=[1.0])]
    row = summarise(sampled, greedy)
    assert (row["problems"], row["samples"]) == (2, 2)
    assert row["accuracy"] == 0.75  # problems 0.5 and 1.0
    assert row["accuracy_se"] == pytest.approx(0.25)
    assert row["greedy_accuracy"] == 0.5
    assert row["format"] == 1.0
    assert row["length"] == 3.5  # completions of 3 and 4 tokens
    assert row["versions"] == [0, 0]


def test_what_could_not_be_judged_is_counted_and_not_right() -> None:
    group = scored(0, rewards=[1.0, 1.0])
    broken = replace(group, scores=(group.scores[0], Score(reward=0.0, parts={}, error="timeout")))
    row = summarise([broken], [])
    assert (row["accuracy"], row["errors"]) == (0.5, 1)


def evaluator(
    sizes: dict[str, int], transcripts: list[dict[str, Any]] | None = None
) -> tuple[Evaluator, list[dict[str, Any]]]:
    config = Config()
    config.logging.transcripts_per_evaluation = 2
    config.data.evaluation = [SourceConfig(name=name) for name in sizes]
    rows: list[dict[str, Any]] = []
    return Evaluator(config, lambda: sizes, rows.append, ([] if transcripts is None else transcripts).append), rows


def worker(name: str) -> FakeHandle:
    def evaluate(source: str, start: int, stop: int, *_: Any) -> list[bytes]:
        return [pack_scored(scored(i, rewards=[1.0])) for i in range(start, stop)]

    return FakeHandle(name, evaluate=evaluate)


def test_every_problem_is_evaluated_once_sampled_and_greedy() -> None:
    subject, rows = evaluator({"heldout": PART + 3})
    a, b = worker("a"), worker("b")
    subject.start(7)
    subject.tick({"a": a, "b": b})
    assert subject.busy
    subject.tick({"a": a, "b": b})
    assert not subject.busy
    (row,) = rows
    assert (row["step"], row["source"], row["problems"], row["greedy_accuracy"]) == (7, "heldout", PART + 3, 1.0)
    assert {len(a.calls), len(b.calls)} == {2}


def test_nothing_is_handed_out_before_the_problems_are_counted() -> None:
    sizes: dict[str, int] = {"heldout": 1}
    subject, rows = evaluator(sizes)
    del sizes["heldout"]
    subject.start(0)
    subject.tick({"a": worker("a")})
    assert subject.busy
    sizes["heldout"] = 1
    for _ in range(2):
        subject.tick({"a": worker("a")})
    assert len(rows) == 1


def test_a_part_goes_to_another_worker_where_one_died() -> None:
    subject, rows = evaluator({"heldout": 1})
    a, b = worker("a"), worker("b")
    a.dead = True
    subject.start(0)
    for _ in range(4):
        subject.tick({"a": a, "b": b})
    assert len(rows) == 1


def test_a_part_that_fails_everywhere_ends_the_run() -> None:
    subject, _ = evaluator({"heldout": 1})
    subject.start(0)
    for i in range(ATTEMPTS):
        a = worker(f"a{i}")
        a.dead = True
        subject.tick({a.name: a})
    with pytest.raises(RetryBudgetExhausted, match=f"failed {ATTEMPTS} times, last on a{ATTEMPTS - 1}"):
        subject.tick({a.name: a})


def test_a_dead_worker_is_not_asked_again_before_the_fleet_knows() -> None:
    subject, rows = evaluator({"heldout": 1})
    a = worker("a")
    a.dead = True
    subject.start(0)
    for _ in range(3 * ATTEMPTS):
        subject.tick({"a": a})
    assert rows == []
    for _ in range(2):
        subject.tick({"a": a, "b": worker("b")})
    assert len(rows) == 1


def test_an_error_of_the_program_is_not_retried() -> None:
    subject, _ = evaluator({"heldout": 1})

    def broken(*_: Any) -> list[bytes]:
        raise KeyError("heldout")

    subject.start(0)
    a = FakeHandle("a", evaluate=broken)
    subject.tick({"a": a})
    with pytest.raises(KeyError):
        subject.tick({"a": a})


def test_no_evaluation_sources_means_nothing_to_wait_for() -> None:
    subject, rows = evaluator({})
    subject.start(0)
    assert not subject.busy
    assert rows == []


def test_the_first_responses_of_an_evaluation_are_kept_in_the_order_of_the_problems() -> None:
    kept: list[dict[str, Any]] = []
    subject, rows = evaluator({"heldout": PART + 3}, kept)
    a = worker("a")
    subject.start(7)
    for _ in range(3):
        subject.tick({"a": a})
    assert len(rows) == 1
    assert [(row["step"], row["prompt_id"]) for row in kept] == [
        (7, scored(i).rollout.prompt.prompt_id) for i in (0, 1)
    ]
    assert {row["source"] for row in kept} == {scored().rollout.prompt.task}


def test_other_rewards_of_an_evaluation_have_a_mean_and_an_error_over_problems() -> None:
    def with_fluency(i: int, *values: float) -> Any:
        group = scored(i, rewards=[1.0] * len(values))
        scores = [replace(s, parts={**s.parts, "fluency": v}) for s, v in zip(group.scores, values, strict=True)]
        return replace(group, scores=tuple(scores))

    row = summarise([with_fluency(0, -1.0, -2.0), with_fluency(1, -2.5, -2.5)], [])
    assert row["parts"] == {"fluency": -2.0}  # problems -1.5 and -2.5
    assert row["parts_se"] == {"fluency": pytest.approx(0.5)}
    assert "parts" not in summarise([scored(0)], [])
