"""Mathematical equivalence: a table of forms, real data, and speed."""

import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ray.rewards.answers.numbers import plain, same
from tests.unit.answer_pairs import KINDS, TABLE, pairs
from tests.unit.reward_support import gsm8k, judge, reward, scorer


@pytest.fixture(scope="module")
def maths():
    with scorer(reward("accuracy", verifier="math")) as made:
        yield made


@pytest.mark.parametrize(
    ("table", "least"), [(TABLE, 340), (KINDS.read_text(encoding="utf-8"), 470)], ids=["forms", "kinds"]
)
def test_the_table_of_pairs(maths, table, least):
    table = pairs(table)
    assert len(table) >= least
    pending = [(pair, maths.begin(sample(f"\\boxed{{{pair[1]}}}", pair[0]))) for pair in table]
    scores = [(pair, p.result().score) for pair, p in pending]
    disagreed = [(pair, score) for pair, score in scores if score.error or bool(score.reward) != pair[2]]
    kinds = Counter("equivalent" if pair[2] else "different" for pair in table)
    print(f"\nthe verifier agrees with {len(table) - len(disagreed)} of {len(table)} pairs {dict(kinds)}")
    assert disagreed == []


def sample(response, answer):
    from r1ray.rewards.base import Sample

    return Sample(response=response, answer=answer)


def test_gsm8k_gold_solutions_are_right_wrong_numbers_are_wrong_and_both_are_fast(maths):
    solutions = gsm8k()
    began = time.process_time()  # plain answers are judged in this process; other tests run beside it
    for solution in solutions:
        work, _, final = solution.rpartition("####")
        wrong = str(int(final.replace(",", "")) + 1)
        assert judge(maths, solution, solution).reward == 1.0
        assert judge(maths, f"{work}#### {wrong}", final.strip()).reward == 0.0
        assert judge(maths, f"<think>{solution}</think> <answer>{final}</answer>", final.strip()).reward == 1.0
    rate = 3 * len(solutions) / (time.process_time() - began)
    print(f"\n{rate:,.0f} plain answers a second over {len(solutions):,} solutions")
    assert rate > 2000


@pytest.mark.parametrize(
    ("response", "reward"),
    [
        ("<think>\\boxed{5}</think> I do not know", 0.0),
        ("\\boxed{5} or \\boxed{6}", 0.0),
        ("\\boxed{5}, that is \\boxed{5.0}", 1.0),
        ("\\boxed{x=5} so \\boxed{5}", 1.0),
        ("<answer>5</answer> <answer>6</answer>", 0.0),
        ("<answer>4, 5, 6</answer>", 0.0),
        ("<answer>5</answer> \\boxed{6}", 0.0),
        ("\\boxed{6} <answer>5</answer>", 0.0),
        ("<answer>5</answer> \\boxed{5.0}", 1.0),
        ("<answer>5 or 6</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_only_one_answer_counts(maths, response, reward):
    assert judge(maths, response, "5").reward == reward


def test_several_boxes_may_share_a_truth_of_several(maths):
    assert judge(maths, "\\boxed{1} and \\boxed{-1}", "1, -1").reward == 1.0
    assert judge(maths, "\\boxed{1} and \\boxed{2}", "1, -1").reward == 0.0


def test_truths_may_be_whole_solutions_and_numbers(maths):
    assert judge(maths, "\\boxed{18}", 18).reward == 1.0
    assert judge(maths, "\\boxed{0.5}", "We get $x=\\boxed{\\frac{1}{2}}$.").reward == 1.0
    assert (
        judge(maths, "18", None).error
        == "DataError: accuracy: the answer on record: expected text or a number, got None"
    )
    assert "DataError" in judge(maths, "18", ["a"]).error


@pytest.mark.parametrize(
    ("truth", "right", "wrong"),
    [
        ("Hence $x=\\boxed{9}$ or $x=\\boxed{-2}$.", "-2, 9", "-2"),
        ("$\\boxed{3}$, $\\boxed{5}$ and $\\boxed{8}$", "\\{8, 5, 3\\}", "8"),
        ("Half is $\\boxed{6}$. So $\\boxed{12}$.", "12", "6"),
    ],
)
def test_a_truth_of_several_boxes_keeps_those_that_are_joined(maths, truth, right, wrong):
    assert judge(maths, f"\\boxed{{{right}}}", truth).reward == 1.0
    assert judge(maths, f"\\boxed{{{wrong}}}", truth).reward == 0.0


@pytest.mark.parametrize("truth", [" ", "\n\t", float("nan"), "NaN", "We get\n#### ", "So \\boxed{ }"])
def test_blank_truths_and_nan_are_faults_of_the_data(maths, truth):
    assert judge(maths, "\\boxed{6}", truth).error.startswith("DataError: accuracy: the answer on record")


def test_it_has_partial_forms_of_a_number_all_the_same_way():
    assert plain("1,23") is None
    assert plain("1,2,3") is None
    assert plain("2x") is None
    assert plain("5 or 6") is None
    assert plain("3/0") is None
    assert plain("9" * 10_000) is None
    assert plain("12.50 dollars") == plain("$12.50")


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_a_fraction_equals_itself_in_every_spelling(top, bottom):
    from fractions import Fraction

    value = Fraction(top, bottom)
    spelled = [
        f"{top}/{bottom}",
        f"\\frac{{{top}}}{{{bottom}}}",
        f"${top}/{bottom}$",
        f"{top:,}/{bottom}".replace(",", ""),
    ]
    numbers = [plain(s) for s in spelled]
    assert all(n is not None and n.value == value and same(numbers[0], n) for n in numbers)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_a_decimal_equals_itself_with_separators_and_not_its_neighbour(value):
    number, grouped, other = plain(f"{value:f}"), plain(f"{value:,f}"), plain(f"{value + 1:f}")
    assert number is not None
    assert grouped is not None
    assert same(number, grouped)
    assert not same(number, other)


fragments = st.sampled_from(
    ["\\boxed{", "}", "{", "<think>", "</think>", "<answer>", "</answer>", "the answer is ", "\\frac{1}{2}", "5", "x^2", "(", ")",
     "[1,2)", "$", "\\sqrt", "\\", "%", "\x00", "\ud800", "∞", "=", "<", ",", "####", "\n", "\\text{a}", "_", "^", "matrix", "!"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(fragments | st.text(max_size=8), max_size=12).map("".join), st.sampled_from(["5", "x^2", "(1,2)", "red"])
)
def test_whatever_is_said_is_judged_or_has_an_error_by_name(maths, response, truth):
    score = judge(maths, response, truth)
    assert score.reward in (0.0, 1.0)
    assert score.error is None or score.error.startswith(("VerifierTimeout: accuracy", "VerifierCrash: accuracy"))
