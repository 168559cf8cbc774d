"""Mathematical equivalence by the math-verify library. Runs in a worker process only: sympy may hang, or eat all memory."""

from __future__ import annotations

import logging
import re
from fractions import Fraction
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from math_verify.errors import TimeoutException
from sympy import Expr, Float, Tuple

from r1ray.rewards.answers.notation import assigned, brackets, elements, is_equation, with_thousands_joined
from r1ray.rewards.answers.numbers import FACTORS, plain, rounding, same, unwrapped

logging.getLogger("math_verify").setLevel(
    logging.ERROR
)  # it warns that its own time-outs are off: the pool keeps the time

_CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)
_NAMES = "sin cos tan cot sec csc log ln exp sqrt min max gcd lcm mod det inf infinity and"
_LAST_LETTER = re.compile(r"^(.*[\d}])([A-Za-z](?:\^?\{?[23]\}?)?)$")
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{3,}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{\w+\}")
_SYMBOLS = {"π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ", "·": r"\cdot ",
            "÷": r"\div ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "±": r"\pm ", "²": "^2", "³": "^3",
            "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", r"\varnothing": r"\emptyset", "**": "^"}  # fmt: skip
_ASCII = (
    (re.compile(r"(?<!\\)\bsqrt\s*\(([^()]*)\)|√\(([^()]*)\)"), r"\\sqrt{\1\2}"),
    (re.compile(r"√\s?(\w+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<!\\)\b(pi|infinity|sin|cos|tan|log|ln|exp)\b"), r"\\\1 "),
    (re.compile(r"\\infinity"), r"\\infty"),
    (re.compile(r"(?<=[^\s*])\s*\*\s*(?=[^\s*])"), r" \\cdot "),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
)
_COMMON = (
    (r"\frac{1}{2}", "x^2 + 1"), ("(x+1)^2", "x^2+2x+1"), ("[0, 1)", r"\{1, 2\}"), ("7+x", "x+7"), ("2x-3y", "x=5"),
    (r"2\sqrt{3}", r"\frac{\pi}{4}"), ("(1, 2)", "1, 2"), (r"\frac{x+1}{2}", r"\sqrt{x}-x_1"), (r"x \le 3", "x > 2"),
    (r"(-\infty, 1) \cup (2, \infty)", r"3 \cdot 10^{4}"), (r"\sin(x)", r"\log_2 8"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\binom{5}{2}"),
)  # fmt: skip
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s?\{?(\d+)\}?")

_FACTOR = re.compile(rf"(?<=[\d}}])\s?({'|'.join(FACTORS)})s?\b", re.IGNORECASE)

_learned = False
"""Whether `warm_up` has been here, or in the process that this one was forked from."""


def equivalent(truth: str, answers: list[str]) -> float:
    """1.0 where every answer equals the truth, or all of them together do (`1` and `-1` for `1, -1`), else 0.0."""
    if all(equal(truth, a) for a in answers):
        return 1.0
    return float(len(answers) > 1 and equal(truth, ", ".join(answers)))


def equal(truth: str, answer: str) -> bool:
    """Whether two expressions are equal in mathematics. What cannot be parsed equals only the same text."""
    left, right = _normal(truth), _normal(answer)
    if left == right:
        return bool(left)
    first, second = plain(truth), plain(answer)
    if first and second:
        return same(first, second)
    if first and first.letter:  # the library takes a letter behind a number for a unit, and leaves it out
        left = _LAST_LETTER.sub(r"\2 \\cdot (\1)", left)
    if _is_prose(left) or _is_prose(right):
        return left.casefold().split() == right.casefold().split()
    if is_equation(left) != is_equation(right):
        values = [assigned(text, equal) if is_equation(text) else text for text in (left, right)]
        return None not in values and equal(str(values[0]), str(values[1]))
    kinds = brackets(left), brackets(right)
    if all(kinds) and kinds[0] != kinds[1]:
        return False
    if "()" in kinds and "" in kinds:  # what stands without brackets beside a tuple is in its order
        left, right = (f"({', '.join(e)})" if len(e := elements(text)) > 1 else text for text in (left, right))
    return _verified(left, right)


def _verified(truth: str, answer: str) -> bool:
    gold, given = _parsed(truth), _parsed(answer)
    agreed = (
        gold and given and verify(gold, given, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    )
    return bool(agreed) and not _is_vanished(gold[0], given[0])


def _is_vanished(truth: Any, answer: Any) -> bool:
    """Whether a number, or one of a tuple, agrees only because the library rounds to six places: 10^{-8} and 0.0."""
    if isinstance(truth, Tuple) and isinstance(answer, Tuple) and len(truth) == len(answer):
        return any(map(_is_vanished, truth, answer))
    if not (isinstance(truth, Expr) and isinstance(answer, Expr) and (truth.has(Float) or answer.has(Float))):
        return False
    values = truth.evalf(), answer.evalf()
    if not all(value.is_Number and value.is_finite and abs(value) < 1 for value in values):
        return False
    one, two = (Fraction(str(value)) for value in values)
    return abs(one - two) > rounding(one)


def warm_up() -> None:
    """Load, and have the parser learn, what the first comparisons would: it learns the forms that it meets.

    A process that was forked from one which has learned them only touches the memory that a comparison writes to.
    """
    global _learned
    for truth, answer in _COMMON[:1] if _learned else _COMMON:
        equal(truth, answer)
    _learned = True


def _normal(text: str) -> str:
    text = unwrapped(text)
    for symbol, latex in _SYMBOLS.items():
        text = text.replace(symbol, latex)
    for pattern, replacement in _ASCII:
        text = pattern.sub(replacement, text)
    text = _FACTOR.sub(lambda word: rf" \cdot {FACTORS[word[1].lower()]}", with_thousands_joined(text))
    return _REPEATING.sub(_fraction, text).strip()


def _fraction(found: re.Match[str]) -> str:
    whole, fixed, cycle = found.groups()
    if len(whole + fixed + cycle) > 40:
        return found.group()
    bottom = int("9" * len(cycle) + "0" * len(fixed))
    top = int((whole or "0") + fixed + cycle) - int((whole or "0") + fixed)
    return rf"\frac{{{top}}}{{{bottom}}}"


def _is_prose(text: str) -> bool:
    """Whether the text has a word, which an algebra system would take for a product of its letters."""
    return any(word.lower() not in _NAMES.split() for word in _WORD.findall(_ENVIRONMENT.sub(" ", text)))


def _parsed(latex: str) -> list[Any]:
    try:
        expressions: list[Any] = parse(
            rf"\boxed{{{latex}}}",
            extraction_config=_CONFIG,
            fallback_mode="no_fallback",
            parsing_timeout=None,
            raise_on_error=True,
        )
    except (MemoryError, RecursionError, TimeoutException):
        raise
    except (
        Exception
    ):  # the parser raises anything for text that is no mathematics: such an answer is wrong, not in error
        return []
    return expressions
