"""pass@k, cons@k and standard errors: by hand, and against going through all the ways to draw."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ray.evaluation.figures import figures
from r1ray.rewards.answers.canonical import canonical_answer
from r1ray.rewards.answers.estimators import consensus, ks, pass_at_k
from r1ray.sampling.store import SampleRow


@pytest.mark.parametrize(
    ("samples", "right", "k", "expected"),
    [
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),
        (4, 2, 2, 5 / 6),
        (4, 0, 4, 0.0),
        (4, 1, 4, 1.0),
        (1, 1, 1, 1.0),
        (10, 3, 5, 11 / 12),
    ],
)
def test_pass_at_k_by_hand(samples: int, right: int, k: int, expected: float) -> None:
    assert pass_at_k(samples, right, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_is_the_share_of_all_draws_with_a_right_one() -> None:
    for n in range(1, 9):
        for c in range(n + 1):
            flags = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                draws = list(itertools.combinations(flags, k))
                share = sum(any(draw) for draw in draws) / len(draws)
                assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12), (n, c, k)


@given(st.integers(1, 2000), st.data())
def test_pass_at_k_is_a_probability_that_grows_with_k_and_with_what_is_right(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    value = pass_at_k(n, c, k)
    assert 0.0 <= value <= 1.0
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)
    if k < n:
        assert pass_at_k(n, c, k + 1) >= value - 1e-12
    if c < n:
        assert pass_at_k(n, c + 1, k) >= value - 1e-12


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 1, 5), (4, 5, 1), (4, -1, 1), (4, 1, 0)])
def test_pass_at_k_of_what_cannot_be_is_refused(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(samples, right, k)


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        (["5", "5", "7"], [1.0, 1.0, 0.0], 1.0),
        (["5", "5", "7"], [0.0, 0.0, 1.0], 0.0),
        (["5", "5", "7", "7", None], [0.0, 0.0, 1.0, 1.0, 0.0], 0.5),  # a tie: the mean of both
        ([None, None, "7"], [0.0, 0.0, 1.0], 1.0),  # who says nothing has no vote
        ([None, None], [0.0, 0.0], 0.0),
        (["5", "5"], [1.0, 0.0], 0.5),  # judged differently for their form
    ],
)
def test_consensus_by_hand(answers: list[str | None], right: list[float], expected: float) -> None:
    assert consensus(answers, right) == expected


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=12))
def test_consensus_is_what_a_vote_with_coins_gives_on_average(votes: list[tuple[str | None, bool]]) -> None:
    truth = {"a": 1.0, "b": 0.0, "c": 0.0}
    answers = [answer for answer, _ in votes]
    right = [truth.get(answer or "", 0.0) for answer in answers]
    counts = {answer: answers.count(answer) for answer in answers if answer is not None}
    if not counts:
        expected = 0.0
    else:
        leaders = [answer for answer, count in counts.items() if count == max(counts.values())]
        expected = sum(truth[answer] for answer in leaders) / len(leaders)
    assert consensus(answers, right) == pytest.approx(expected)


def test_which_k_are_told() -> None:
    assert (ks(1), ks(2), ks(6), ks(64)) == ([1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16, 32, 64])


def row(index: int, sample: int, accuracy: float | None, answer: str | None, **changes: object) -> SampleRow:
    parts = {} if accuracy is None else {"accuracy/maths": accuracy, "format": 1.0}
    fields: dict[str, object] = {
        "source": "s", "prompt_id": f"s/{index}", "index": index, "sample": sample,
        "messages": ({"role": "user", "content": "?"},), "answer": "1", "meta": {}, "response": "",
        "tokens": 10 + sample, "finish_reason": "stop", "reward": accuracy, "parts": parts,
        "error": None if accuracy is not None else "VerifierTimeout: accuracy: no verdict", "answer_text": answer,
    }  # fmt: skip
    return SampleRow(**{**fields, **changes})  # type: ignore[arg-type]


def test_figures_of_a_benchmark_by_hand() -> None:
    rows = [
        *(
            row(0, i, right, answer)
            for i, (right, answer) in enumerate([(1.0, "1"), (1.0, "1"), (0.0, "2"), (0.0, None)])
        ),
        *(
            row(1, i, right, answer)
            for i, (right, answer) in enumerate([(0.0, "3"), (0.0, "3"), (0.0, "4"), (None, "1")])
        ),
    ]
    told = figures(rows, verifier="exact")
    assert (told["problems"], told["samples"]) == (2, 4)
    assert told["accuracy"] == 0.25  # problems 0.5 and 0
    assert told["accuracy_se"] == pytest.approx(math.sqrt(2 * 0.25**2 / 2))
    assert told["pass_at"] == pytest.approx({"1": 0.25, "2": 5 / 12, "4": 0.5})
    assert (told["consensus"], told["consensus_se"]) == (0.5, pytest.approx(0.5))
    assert (told["length"], told["answered"]) == (11.5, 7 / 8)
    assert told["errors"] == {"VerifierTimeout": 1}
    assert told["parts"] == {"accuracy": 2 / 7, "format": 1.0}
    assert figures(rows, verifier="code")["consensus"] is None


@pytest.mark.parametrize(
    ("one", "other"), [("1,234", "1234.0"), ("\\frac{1}{2}", "0.5"), ("Paris.", "paris"), ("\\text{Paris}", "PARIS")]
)
def test_equal_answers_have_one_form(one: str, other: str) -> None:
    found = [canonical_answer(f"<think>so</think><answer>{text}</answer>", "stop") for text in (one, other)]
    assert found[0] is not None
    assert found[0] == found[1]


def test_what_gives_no_answer_has_none() -> None:
    assert canonical_answer("<think>on and on", "length") is None
    assert canonical_answer("<think>x</think><answer>" + "9" * 5000 + "</answer>", "stop") is None
