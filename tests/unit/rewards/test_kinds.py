"""The other verifiers and rewards, each by itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ray.errors import ConfigError, DataError
from r1ray.rewards.answers.accuracy import ExactVerifier, NumericVerifier, TaskVerifier
from r1ray.rewards.answers.choice import ChoiceVerifier
from r1ray.rewards.base import Sample
from r1ray.rewards.text.format import Format
from r1ray.rewards.text.language import Language
from r1ray.rewards.text.length import CosineLength, Length
from r1ray.rewards.text.repetition import Repetition

CITIES = ["Paris", "London", "Berlin", "Rome"]


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("B", 1.0),
        ("(B)", 1.0),
        ("b.", 1.0),
        ("\\boxed{B}", 1.0),
        ("\\boxed{\\text{B}}", 1.0),
        ("The answer is (B).", 1.0),
        ("Answer: **B**", 1.0),
        ("The answer is B) London", 1.0),
        ("The answer is London.", 1.0),
        ("<answer>london</answer>", 1.0),
        ("The correct option is B because it rains.", 1.0),
        ("option B", 1.0),
        ("A", 0.0),
        ("B) Paris", 0.0),
        ("Paris", 0.0),
        ("E", 0.0),
        ("A, B, C, D", 0.0),
        ("(A) Paris (B) London (C) Berlin (D) Rome", 0.0),
        ("B or C", 0.0),
        ("\\boxed{B} \\boxed{C}", 0.0),
        ("<think>B</think>", 0.0),
        ("Barcelona", 0.0),
        ("", 0.0),
    ],
)
def test_choice(response, value):
    verifier = ChoiceVerifier()
    assert verifier(Sample(response=response, answer="B", meta={"choices": CITIES})) == value
    assert verifier(Sample(response=response, answer={"answer": "London", "choices": CITIES})) == value


@pytest.mark.parametrize(
    ("response", "value"), [("B", 1.0), ("(B) London", 1.0), ("(A) Paris (B) London", 0.0), ("A, B", 0.0)]
)
def test_choice_without_options(response, value):
    assert ChoiceVerifier()(Sample(response=response, answer="B")) == value


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("B 12", 1.0),
        ("B, 12", 1.0),
        ("(B) 12", 1.0),
        ("\\boxed{B - 12}", 1.0),
        ("The answer is B 12", 1.0),
        ("option B is right", 1.0),
        ("Choice (B) is the correct one.", 1.0),
        ("B is correct", 1.0),
        ("B 10", 0.0),
        ("A 12", 0.0),
        ("A 10, B 12", 0.0),
        ("A 10 B 12", 0.0),
        ("A, B", 0.0),
        ("option B is wrong", 0.0),
        ("option A is right, option B is right", 0.0),
        ("option C is right", 0.0),
    ],
)
def test_choice_by_letter_and_text_in_other_spellings(response, value):
    assert ChoiceVerifier()(Sample(response=response, answer="B", meta={"choices": ["10", "12"]})) == value


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("It is \\boxed{12} long, hence \\boxed{D}.", "D"),
        ("\\boxed{D}, which is \\boxed{7} less", "D"),
        ("\\boxed{D} is tempting.\n\n\\boxed{B}", "B"),
        ("\\boxed{A} or \\boxed{B}", None),
        ("\\boxed{5} \\boxed{B}", "B"),
    ],
)
def test_of_several_boxes_the_last_that_is_an_option_counts(response, letter):
    for truth in "ABCD":
        sample = Sample(response=response, answer=truth, meta={"choices": ["10 m", "11 m", "13 m", "14 m"]})
        assert ChoiceVerifier()(sample) == float(truth == letter)


@pytest.mark.parametrize(("response", "place"), [("\\boxed{B}", 1), ("(D)", 3), ("The answer is A.", 0), ("C", 2)])
def test_a_letter_is_a_letter_even_if_options_are_letters_too(response, place):
    for truth in range(4):
        sample = Sample(response=response, answer=truth, meta={"choices": ["D", "C", "A", "B"]})
        assert ChoiceVerifier()(sample) == float(truth == place)


def test_letters_beyond_the_options_are_texts():
    assert ChoiceVerifier()(Sample(response="\\boxed{x}", answer=1, meta={"choices": ["y", "x"]})) == 1.0


def test_integer_truth_is_the_index_of_the_right_option():
    verifier = ChoiceVerifier()
    colours = {"answer": 2, "choices": ["red", "green", "blue", "x"]}
    assert verifier(Sample(response="blue", answer=colours)) == 1.0
    assert verifier(Sample(response="\\boxed{B}", answer=colours)) == 0.0
    numbers = {"choices": ["1", "2", "3", "4"]}
    assert verifier(Sample(response="\\boxed{C}", answer=2, meta=numbers)) == 1.0
    assert verifier(Sample(response="\\boxed{C}", answer="2", meta=numbers)) == 0.0  # the option's text
    assert verifier(Sample(response="A", answer=0)) == 1.0
    for wrong in (4, -1):
        with pytest.raises(DataError, match="no place among the 4 options"):
            verifier(Sample(response="A", answer=wrong, meta=numbers))


def test_choice_refuses_a_truth_that_is_not_an_option():
    with pytest.raises(DataError, match="neither a letter nor an option"):
        ChoiceVerifier()(Sample(response="B", answer="Madrid", meta={"choices": CITIES}))


def test_exact():
    exact = ExactVerifier()
    assert exact(Sample(response="The answer is  Red  fox.", answer="red fox")) == 1.0
    assert exact(Sample(response="red foxes", answer="red fox")) == 0.0
    assert exact(Sample(response="vixen", answer=["red fox", "vixen"])) == 1.0
    assert ExactVerifier(ignore_case=False)(Sample(response="red", answer="Red")) == 0.0
    for blank in (" ", ["red", "\t"], float("nan")):
        with pytest.raises(DataError, match="on record"):
            exact(Sample(response="red", answer=blank))


def test_numeric():
    assert NumericVerifier()(Sample(response="the answer is 3.1416", answer=3.14159)) == 0.0
    assert NumericVerifier(absolute=0.001)(Sample(response="the answer is 3.1416", answer=3.14159)) == 1.0
    assert NumericVerifier(relative=0.01)(Sample(response="\\boxed{1,010}", answer="1000")) == 1.0
    assert NumericVerifier()(Sample(response="many", answer=3)) == 0.0
    with pytest.raises(DataError, match="no number"):
        NumericVerifier()(Sample(response="3", answer="many"))
    with pytest.raises(ConfigError, match="relative"):
        NumericVerifier(relative=-1.0)


@pytest.mark.parametrize(
    ("truth", "answer", "value"),
    [
        ("0.5", "0.5\\%", 0.0),
        ("0.5", "50\\%", 1.0),
        ("50%", "0.5", 1.0),
        ("50%", "49.9999999%", 1.0),
        ("9", "y = 9", 1.0),
        ("|AB| = 9", "9 cm", 1.0),
        ("9", "x+y = 9", 0.0),
        ("1%", "100%", 0.0),
        ("5 km", "5 m", 0.0),
        ("5 km", "5", 1.0),
        ("5 km", "5.000001 km", 1.0),
        ("0.000001", "0", 0.0),
    ],
)
def test_numeric_reads_percent_and_units(truth, answer, value):
    assert NumericVerifier()(Sample(response=f"\\boxed{{{answer}}}", answer=truth)) == value


def test_checker_of_a_synthetic_task():
    meta = {"synthetic": "arithmetic", "params": {"digits": [2, 3]}}
    check = TaskVerifier()
    assert check(Sample(response="<think>hm</think> <answer> 1,234 </answer>", answer="1234", meta=meta)) == 1.0
    assert check(Sample(response="<think>hm</think> <answer> 1235 </answer>", answer="1234", meta=meta)) == 0.0
    assert check(Sample(response="<answer>1234</answer> <answer>1235</answer>", answer="1234", meta=meta)) == 0.0
    with pytest.raises(DataError, match="synthetic tasks only"):
        check(Sample(response="1234", answer="1234"))


# The same short chain of thought in each language.
def test_soft_overlong_punishment():
    values = [
        Length(buffer_tokens=20)(Sample(response="", tokens=t, max_new_tokens=100)) for t in (0, 80, 90, 100, 120)
    ]
    assert values == [0.0, 0.0, -0.5, -1.0, -1.0]
    assert Length(buffer_tokens=20, max_tokens=50)(Sample(response="", tokens=40, max_new_tokens=100)) == -0.5
    with pytest.raises(DataError, match="number of tokens"):
        Length(buffer_tokens=20)(Sample(response=""))
    with pytest.raises(ConfigError, match="buffer_tokens"):
        Length(buffer_tokens=0)


def test_cosine_length():
    shaped = CosineLength(inner=ExactVerifier())

    def value(response, tokens):
        return shaped(Sample(response=response, answer="a", tokens=tokens, max_new_tokens=100))

    assert [value("a", t) for t in (0, 50)] == pytest.approx([2.0, 1.5])
    assert [value("b", t) for t in (0, 50)] == pytest.approx([-10.0, -5.0])
    assert value("a", 99) == pytest.approx(1.0, abs=0.01)
    assert value("b", 99) == pytest.approx(0.0, abs=0.01)
    assert value("a", 100) == value("b", 100) == -10.0


def test_repetition():
    assert Repetition()(Sample(response="each of these words is here just once, no more")) == 0.0
    assert Repetition()(Sample(response="wait, let me check. " * 200)) < -0.95
    assert Repetition(n=3)(Sample(response="我们再检查一遍。" * 50)) < -0.9
    assert Repetition(n=1)(Sample(response="a a b b")) == -0.5
    assert Repetition()(Sample(response="")) == 0.0


PURE = [
    Format(),
    Language(target="en"),
    Language(target="ja"),
    Repetition(),
    ChoiceVerifier(),
    ExactVerifier(),
    NumericVerifier(),
]
pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "}",
        "```",
        "$",
        "\\(",
        "\\[",
        "\ud800",
        "\x00",
        "B",
        "(A)",
        "die",
        "的",
        "の",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces | st.text(max_size=10), max_size=15).map("".join))
def test_pure_rewards_accept_any_text(response):
    for pure in PURE:
        answer = "3" if isinstance(pure, NumericVerifier) else "B"
        assert -1.0 <= pure(Sample(response=response, answer=answer)) <= 1.0


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        " ",
        "\n",
        "{",
        "\\boxed{",
        "<think>",
        "$",
        "\\(",
        "\\[",
        "```",
        "```\n",
        "answer is ",
        "word ",
        "`a",
        "\\text{",
        "的",
        "(A) ",
        ", ",
        "<answer>",
    ],
)
def test_ten_megabytes_take_less_than_a_second(unit):
    import time

    response = unit * (10_000_000 // len(unit))
    for pure in PURE:
        answer = "3" if isinstance(pure, NumericVerifier) else "B"
        began = time.thread_time()  # what else runs on this machine does not count
        pure(Sample(response=response, answer=answer))
        assert time.thread_time() - began < 1.0, (type(pure).__name__, unit)
