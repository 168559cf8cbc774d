"""Which samples vote for the same answer, by verifier; and what the online evaluation makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from r1ray.config.schema import RewardConfig, SourceConfig
from r1ray.evaluation.figures import figures
from r1ray.rewards.answers.canonical import MOST_COMPARISONS, ballot, canonical_answer, merged, verifier_of
from r1ray.rewards.answers.equality import Equality
from r1ray.rewards.answers.summary import summarise
from r1ray.sampling.store import SampleRow
from r1ray.types import ScoredGroup
from tests.unit.scripted import scored


@pytest.mark.parametrize(
    ("said", "letter"),
    [("B", "B"), ("(b)", "B"), ("B. green", "B"), ("green", "B"), ("B. red", None), ("E", None), ("maybe", None)],
)
def test_a_choice_is_a_vote_for_its_letter(said: str, letter: str | None) -> None:
    text = canonical_answer(f"<think>so</think><answer>{said}</answer>", "stop")
    assert ballot(text, "choice", ["red", "green", "blue", "black"]) == letter


def test_two_boxes_vote_only_where_they_agree() -> None:
    agreed = canonical_answer(r"\boxed{(B)} so \boxed{B}", "stop")
    torn = canonical_answer(r"\boxed{A} or \boxed{B}", "stop")
    assert ballot(agreed, "choice") == "B"
    assert ballot(torn, "choice") is None


def test_a_vote_is_the_last_box_that_is_an_option() -> None:
    text = r"So \boxed{C}. It weighs \boxed{14} kg."
    assert canonical_answer(text, "stop", choices=["10 kg", "12 kg", "13 kg"]) == "C"
    assert canonical_answer(text, "stop") == "14"


@pytest.mark.parametrize("verifier", ["code", "instructions", None])
def test_what_cannot_agree_does_not_vote(verifier: str | None) -> None:
    assert ballot("print(1)", verifier) is None
    assert ballot("7", "numeric") == "7"


def test_the_case_of_latex_stays() -> None:
    assert canonical_answer(r"\boxed{2\Pi}", "stop") == r"2\Pi"
    assert canonical_answer(r"\boxed{Red}", "stop") == "red"


def test_letters_of_mathematics_keep_their_case_in_votes() -> None:
    large, small = (canonical_answer(f"\\boxed{{{text}}}", "stop") for text in ("R", "r"))
    assert ballot(large, "math") != ballot(small, "math")
    assert ballot(large, "exact") == ballot(small, "exact")


def test_right_answers_of_mathematics_are_one_answer_however_they_are_spelt() -> None:
    ballots = ["x+1", "1+x", "3", "3", None]
    assert merged(ballots, [1.0, 1.0, 0.0, 0.0, 0.0]) == ["x+1", "x+1", "3", "3", None]


def test_wrong_expressions_are_compared_only_where_it_could_matter() -> None:
    asked: list[tuple[str, str]] = []

    def same(one: str, other: str) -> bool:
        asked.append((one, other))
        return sorted(one) == sorted(other)

    tight = merged(["r", "ab", "ba", "5", "6"], [1.0, 0.0, 0.0, 0.0, 0.0], same)
    assert tight == ["r", "ab", "ab", "5", "6"]
    assert asked == [("ab", "ba")]  # numbers are never compared
    assert merged(["r", "r", "r", "ab", "ba"], [1.0, 1.0, 1.0, 0.0, 0.0], same)[3:] == ["ab", "ba"]
    assert merged(["ab", "ba"], [0.0, 0.0], same) == ["ab", "ba"]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "texts",
    [["y=9", "9", "y = 9.0", "9 m"], ["10^4", "10000", "10{,}000", "1e4"], ["|AB| = 3/4", "0.75", "\\frac{3}{4}"]],
)
def test_one_number_is_one_vote_however_it_is_written(texts: list[str]) -> None:
    votes = {canonical_answer(f"\\boxed{{{text}}}", "stop") for text in texts}
    assert len(votes) == 1


def test_equations_that_name_no_quantity_are_votes_of_their_own() -> None:
    assert canonical_answer(r"\boxed{x+y=9}", "stop") != canonical_answer(r"\boxed{9}", "stop")


@pytest.fixture(scope="module")
def same() -> Iterator[Equality]:
    """A patient comparison; its process takes seconds to start."""
    with Equality(limit_s=30.0) as made:
        yield made


def test_an_expression_without_letters_is_compared_with_numbers(same: Equality) -> None:
    assert merged([r"\sqrt{81}", "9", "9", "6"], [0.0, 0.0, 0.0, 1.0], same) == ["9", "9", "9", "6"]


def test_comparisons_have_an_end() -> None:
    asked = []
    wrong = [f"x^{{{i}}}y" for i in range(40)]

    def never(one: str, other: str) -> bool:
        asked.append(one)
        return False

    assert merged(["r", *wrong], [1.0, *[0.0] * 40], never) == ["r", *wrong]
    assert len(asked) == MOST_COMPARISONS


def test_expressions_are_the_same_by_algebra_and_what_hangs_is_not(
    same: Equality, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(r"\frac{x+1}{2}", r"\frac{1}{2}x+\frac{1}{2}")
    assert not same(r"\frac{x+1}{2}", r"\frac{x+2}{2}")
    monkeypatch.setattr(same, "_limit_s", 0.3)
    assert not same("9^{9^{9^{9}}}+x", "x+9^{9^{9^{9}}}-1")


def row(sample: int, value: float, answer: str) -> SampleRow:
    return SampleRow(
        source="s", prompt_id="s/0", index=0, sample=sample, messages=({"role": "user", "content": "?"},), answer="1",
        meta={}, response="", tokens=3, finish_reason="stop", reward=value, parts={"accuracy": value}, error=None,
        answer_text=answer,
    )  # fmt: skip


def test_the_vote_of_a_benchmark_follows_its_verifier() -> None:
    rows = [row(0, 1.0, "x+1"), row(1, 1.0, "1+x"), row(2, 0.0, "y"), row(3, 0.0, "y"), row(4, 1.0, "1 + x")]
    assert figures(rows, verifier="exact")["consensus"] == 0.0
    assert figures(rows, verifier="math")["consensus"] == 1.0


def test_the_verifier_of_a_source_is_that_of_its_accuracy() -> None:
    rewards = [
        RewardConfig(name="format"),
        RewardConfig(name="accuracy/maths"),
        RewardConfig(name="accuracy/logic", params={"verifier": "task"}),
    ]
    assert verifier_of(rewards, SourceConfig(name="a")) == "math"
    assert verifier_of(rewards, SourceConfig(name="a", rewards=["format", "accuracy/logic"])) == "task"
    assert verifier_of(rewards, SourceConfig(name="a", rewards=["format"])) is None


def says(answers: list[str], rewards: list[float]) -> ScoredGroup:
    group = scored(0, rewards=rewards)
    told = tuple(
        replace(c, text=f"\\boxed{{{answer}}}") for c, answer in zip(group.rollout.completions, answers, strict=True)
    )
    return replace(group, rollout=replace(group.rollout, completions=told))


def test_an_evaluation_of_several_samples_tells_consensus_and_pass_at_k() -> None:
    told = summarise([says(["5", "5", "7"], [1.0, 1.0, 0.0]), says(["1", "2", "2"], [1.0, 0.0, 0.0])], [], "numeric")
    assert (told["consensus"], told["consensus_se"]) == (0.5, pytest.approx(0.5))
    # 1 - (1/3)(0/2) and 1 - (2/3)(1/2) of two draws
    assert told["pass_at"] == pytest.approx({"1": 0.5, "2": (1 + 2 / 3) / 2, "3": 1.0})
    assert told["pass_at_se"]["3"] == 0.0


def test_one_sample_tells_neither() -> None:
    told = summarise([says(["5"], [1.0])], [], "numeric")
    assert not {"consensus", "pass_at"} & set(told)
    assert "consensus" not in summarise([says(["5", "5"], [1.0, 1.0])], [], "code")
