"""Each synthetic task: its problems have the properties they claim,
its checker takes what is right and nothing else.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ray.tasks import get_task
from r1ray.tasks.base import Problem
from r1ray.tasks.cipher import encipher
from r1ray.tasks.expression import ExpressionError, evaluate, tokenise
from r1ray.tasks.knights import solutions
from r1ray.tasks.seeded import is_heldout
from r1ray.tasks.syllogism import _CONCLUSIONS, follows


def problems(name: str, n: int = 100, **params: object) -> list[Problem]:
    task = get_task(name, params)
    return [task.problem(i, "train", 0) for i in range(n)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("10 - 4 - 3", 3),
        ("100 / 5 / 2", 10),
        ("1 / 3 + 1 / 6", Fraction(1, 2)),
        ("((7))", 7),
        ("3 × 4 ÷ 2 − 1", 5),
        (r"$\left(3 \times 4\right) \div 2$.", 6),
        ("(" * 50 + "1" + ")" * 50, 1),
    ],
)
def test_values(text: str, value: int | Fraction) -> None:
    assert evaluate(tokenise(text)) == value


@pytest.mark.parametrize(
    "text",
    ["", "()", "1 +", "+ 1", "-1", "1 2", "1(2)", "(1)(2)", "(1", "1)", ")(", "1 + + 2", "2 ** 3", "1 / 0", "1 // 2", "x",
     "1.5", "1e3", "12345678901", "1+" * 200 + "1", "(" * 201],
)  # fmt: skip
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(tokenise(text))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_values_agree_with_a_tree(data: st.DataObject) -> None:
    """Against a value computed by recursion over the tree that the text was printed from, fully parenthesised."""

    def tree(depth: int) -> tuple[str, Fraction]:
        if depth == 0 or data.draw(st.booleans()):
            n = data.draw(st.integers(0, 99))
            return str(n), Fraction(n)
        (a, x), (b, y) = tree(depth - 1), tree(depth - 1)
        sign = data.draw(st.sampled_from("+-*" if y == 0 else "+-*/"))
        value = {"+": x + y, "-": x - y, "*": x * y}[sign] if sign != "/" else x / y
        return f"({a}{sign}{b})", value

    text, value = tree(4)
    assert evaluate(tokenise(text)) == value


def test_arithmetic() -> None:
    task = get_task("arithmetic", {"digits": [3, 5]})
    for problem in problems("arithmetic", digits=[3, 5]):
        expression = problem.prompt.removeprefix("What is ").removesuffix("?")
        assert evaluate(tokenise(expression)) == int(problem.answer)
        assert all(3 <= len(n) <= 5 for n in expression.split()[::2])
    for right in ("-1234567", "−1234567", "-1,234,567", " -1234567. ", "$-1234567$"):
        assert task.check(right, "-1234567")
    for wrong in ("1234567", "-1234567 or 5", "-12,34,567", "-1234567.0", "-1234 567", "5-1234572"):
        assert not task.check(wrong, "-1234567")


def test_sums_and_their_mirror_images_share_a_split() -> None:
    for problem in problems("arithmetic"):
        a, sign, b = problem.prompt.removeprefix("What is ").removesuffix("?").split()
        low, high = sorted((int(a), int(b)))
        assert not is_heldout("arithmetic", f"{low} {sign} {high}")


def test_countdown() -> None:
    task = get_task("countdown", {})
    truth = {"numbers": [3, 8, 25, 50], "target": 117}
    for right in ("3 * 25 + 50 - 8", "(50-8)+25*3", "50 + 25 × 3 − 8", "3*25+50-8 = 117"):
        assert task.check(right, truth)
    for wrong in ("3 * 25 + 50 - 8 = 118", "117", "3*25+42", "50+25*3-8+3-3", "50+25*3-8=x", "3 + 8 + 25 + 50", "=117"):
        assert not task.check(wrong, truth)


def test_every_countdown_problem_has_a_solution() -> None:
    for problem in problems("countdown", 25, numbers=3):
        numbers, target = problem.answer["numbers"], problem.answer["target"]
        assert target not in numbers
        assert target in _reachable(tuple(map(Fraction, numbers)))


def _reachable(numbers: tuple[Fraction, ...]) -> set[Fraction]:
    if len(numbers) == 1:
        return set(numbers)
    found: set[Fraction] = set()
    for i, j in product(range(len(numbers)), repeat=2):
        if i != j:
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            a, b = numbers[i], numbers[j]
            for value in (a + b, a - b, a * b, *([a / b] if b else [])):
                found |= _reachable((*rest, value))
    return found


def test_parentheses() -> None:
    task = get_task("parentheses", {})
    truth = {"expression": "7 - 2 * 3 + 1", "value": -1}
    for right in ("7 - 2 * (3 + 1) = -1", "7-2*(3+1)", "(7 - 2 * (3 + 1)) = -1", "7 - (2 * (3 + 1))"):
        assert task.check(right, truth)
    for wrong in (
        "7 - 2 * 3 + 1 = -1",
        "(7 - 2) * (3 + 1)",
        "7 - 2 * (1 + 3)",
        "0 - 1",
        "7-2*(3+1)+0",
        "7 - 2*(3 + 1) = 1",
    ):
        assert not task.check(wrong, truth)
    for problem in problems("parentheses"):
        assert not task.check(problem.answer["expression"], problem.answer), "without parentheses it must not hold"


def test_cipher() -> None:
    task = get_task("cipher", {})
    for right in ("small owl", "Small owl.", '"small  owl"', "SMALL OWL"):
        assert task.check(right, "small owl")
    for wrong in ("small", "smallowl", "owl small", "small owl or large owl", ""):
        assert not task.check(wrong, "small owl")
    for problem in problems("cipher"):
        quoted = problem.prompt.split('"')[1::2]
        assert _decipher(quoted[0]) == quoted[1]
        assert _decipher(quoted[2]) == problem.answer


def _decipher(text: str) -> str:
    pairs = ([word[i : i + 2] for i in range(0, len(word), 2)] for word in text.split())
    return " ".join("".join(chr((ord(p[0]) + ord(p[1])) // 2) for p in word) for word in pairs)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz ", max_size=30), st.integers())
@settings(max_examples=50, deadline=None)
def test_a_cipher_has_one_reading(text: str, seed: int) -> None:
    text = " ".join(text.split())
    assert _decipher(encipher(text, random.Random(seed))) == text


@pytest.mark.parametrize("same_length", [False, True])
def test_candles(same_length: bool) -> None:
    task = get_task("candles", {"same_length": same_length})
    for problem in problems("candles", same_length=same_length):
        first, last = problem.prompt.split("All burn equally fast.")
        left = {w[0]: int(w[1]) for w in (p.split() for p in last.split(": ")[1].split(".")[0].split(", "))}
        if same_length:
            burnt = {name: int(first.split("each ")[1].split()[0]) - rest for name, rest in left.items()}
        else:
            long = {w[0]: int(w[1]) for w in (p.split() for p in first.split(": ")[1].split(", "))}
            burnt = {name: long[name] - rest for name, rest in left.items()}
        assert min(left.values()) > 0
        assert len(set(burnt.values())) == len(burnt)
        assert problem.answer == min(burnt, key=burnt.__getitem__)
    for right in ("B", "b", "(B)", "Candle B", "candle (b)."):
        assert task.check(right, "B")
    for wrong in ("A", "A or B", "B, C", "AB", "", "blue"):
        assert not task.check(wrong, "B")


def test_fifteen_moods_prove_something() -> None:
    """Of the 256 classical syllogisms (minor premise S-M, major M-P in four figures)
    15 hold without existential import.
    """
    forms = ("all", "no", "some", "not")
    figures = [((1, 2), (0, 1)), ((2, 1), (0, 1)), ((1, 2), (1, 0)), ((2, 1), (1, 0))]
    valid = [
        (major, minor, conclusion, i)
        for i, (p, s) in enumerate(figures)
        for major, minor, conclusion in product(forms, repeat=3)
        if follows((major, *p), (minor, *s), (conclusion, 0, 2))
    ]
    assert len(valid) == 15
    assert ("all", "all", "all", 0) in valid  # Barbara


def test_syllogisms_have_one_right_choice() -> None:
    found = Counter(problem.answer for problem in problems("syllogism", 400))
    assert set(found) == set("ABCDE")
    assert 0.14 < found["E"] / 400 < 0.26  # a fifth, give or take three standard deviations
    task = get_task("syllogism", {})
    assert task.check("c.", "C")
    assert not task.check("A, B, C, D, E", "C")
    assert len(_CONCLUSIONS) == 6


def test_knights_and_knaves() -> None:
    task = get_task("knights", {})
    truth = {"Ada": "knight", "Ben": "knave"}
    for right in ("Ada: knight, Ben: knave", "ben is a knave and ada is a knight.", "Ada = knight\nBen = knave"):
        assert task.check(right, truth)
    for wrong in (
        "Ada: knave, Ben: knave",
        "Ada: knight",
        "Ada: knight, Ada: knave, Ben: knave",
        "Ada: knight, Ada: knight",
        "Ada: knight or knave, Ben: knight or knave",
        "Ada: knight, Ben: knave, Cleo: knave",
        "Ada: knight, Ben: not a knave",
    ):
        assert not task.check(wrong, truth)


def test_puzzles_have_one_solution_and_few_give_themselves_away() -> None:
    kinds = Counter(kind for problem in problems("knights", 200) for kind in problem.answer.values())
    assert 0.3 < kinds["knave"] / kinds.total() < 0.7
    assert solutions([("knave", (1,)), ("knave", (0,))]) == [(True, False), (False, True)]
    assert solutions([("same", (0, 1)), ("differ", (0, 1))]) == [(False, True)]
    assert solutions([("count", (2,)), ("count", (1,))]) == [(False, True)]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_tests_of_transpose_are_right() -> None:
    """Run by a script of our own, for the notation `[1,2];[3,4]`."""
    script = r"""
    IFS=';' read -r -a rows
    out=()
    for row in "${rows[@]}"; do
      IFS=',' read -r -a cells <<< "${row:1:-1}"
      for i in "${!cells[@]}"; do out[i]="${out[i]:+${out[i]},}${cells[i]}"; done
    done
    line=""
    for row in "${out[@]}"; do line="${line:+$line;}[$row]"; done
    echo "$line"
    """
    chosen = [p for p in problems("transpose", 400) if "]" in p.prompt and "];[" in str(p.answer) and "," in p.prompt]
    tests = [t for p in chosen for t in p.answer["tests"] if not set(t["stdin"]) - set("[],;0123456789\n")]
    assert tests
    for test in tests[:12]:
        done = subprocess.run(["bash", "-c", script], input=test["stdin"], capture_output=True, text=True, timeout=10)
        assert done.stdout == test["stdout"]
