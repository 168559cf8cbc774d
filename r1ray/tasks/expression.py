"""Parse and evaluate model-written arithmetic without Python's evaluator: exact fractions, bounded size."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from r1ray.tasks.answers import clean, integer

_MAX_TOKENS = 200
_MAX_DIGITS = 9
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_NOTATION = {"\\times": "*", "\\cdot": "*", "\\div": "/", "×": "*", "·": "*", "÷": "/", "\\left": "", "\\right": ""}


class ExpressionError(ValueError):
    """The text is not an expression of integers with + - * / and parentheses, or is too long."""


def tokenise(text: str) -> list[str]:
    """Numbers, operators and parentheses, with LaTeX and Unicode signs as plain ones. Raises ExpressionError."""
    text = clean(text)
    for written, meant in _NOTATION.items():
        text = text.replace(written, meant)
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != "".join(text.split()):
        raise ExpressionError("expected only numbers, + - * / and parentheses")
    if len(tokens) > _MAX_TOKENS or any(len(t) > _MAX_DIGITS for t in tokens):
        raise ExpressionError(f"more than {_MAX_TOKENS} parts, or a number of more than {_MAX_DIGITS} digits")
    return tokens


def evaluate(tokens: Sequence[str]) -> Fraction:
    """The value, by Dijkstra's shunting yard: no recursion, so no depth to bound. Raises ExpressionError."""
    values: list[Fraction] = []
    waiting: list[str] = []  # operators and opening parentheses
    after_value = False
    for part in tokens:
        is_infix = part in _PRECEDENCE or part == ")"
        if is_infix != after_value:
            raise ExpressionError(f"{part} is out of place")
        if part in _PRECEDENCE:
            while waiting and _PRECEDENCE.get(waiting[-1], 0) >= _PRECEDENCE[part]:
                _apply(waiting.pop(), values)
            waiting.append(part)
        elif part == "(":
            waiting.append(part)
        elif part == ")":
            while waiting and waiting[-1] != "(":
                _apply(waiting.pop(), values)
            if not waiting:
                raise ExpressionError("a closing parenthesis without an opening one")
            waiting.pop()
        else:
            values.append(Fraction(int(part)))
        after_value = part not in _PRECEDENCE and part != "("
    if not after_value or "(" in waiting:
        raise ExpressionError("the expression is incomplete")
    while waiting:
        _apply(waiting.pop(), values)
    return values[0]


def _apply(sign: str, values: list[Fraction]) -> None:
    right, left = values.pop(), values.pop()
    if sign == "/" and right == 0:
        raise ExpressionError("division by zero")
    values.append(_OPERATIONS[sign](left, right))


def solves(answer: str, value: int) -> list[str] | None:
    """The tokens of an answer that is an expression with this value, with or without `= value`; else None."""
    left, equals, right = clean(answer).partition("=")
    if equals and integer(right) != value:
        return None
    try:
        tokens = tokenise(left)
        return tokens if evaluate(tokens) == value else None
    except ExpressionError:
        return None
