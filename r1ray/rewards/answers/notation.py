"""The outer form of a mathematical text: brackets, lists, equations, thousands. Text in, text out, in linear time."""

from __future__ import annotations

import re
from collections.abc import Callable

_TOKEN = re.compile(r"\\[{}]|[()\[\]{},]")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_BRACED_THOUSANDS = re.compile(r"(?<=\d)\{,\}(?=\d{3}(?!\d))")
_ARGUMENT = re.compile(r"(?:\\[A-Za-z]+|[}\]^_])\s?$")
"""What a brace follows that begins an argument, as in \\frac{1}{2}, and no set."""
_BETWEEN = re.compile(r"[,;]|\b(?:or|and)\b")
_EQUALS = re.compile(r"(?<![<>!=]):?=(?!=)")
_NAME = r"(?:[A-Za-z]|[A-Z]{2}|\\[A-Za-z]+)\s?'*(?:_\s?(?:\w|\{[^{}]*\}))?"
_SYMBOL = re.compile(rf"{_NAME}|[fghFGHPEVTNSp](?:_\w)?'*\s?\([^()]*\)|\(\s?{_NAME}(?:\s?,\s?{_NAME})+\s?\)")
"""What stands alone on the left of a value: x, x_1, \\theta, AB (a length), f(2), (x, y)."""


def with_thousands_joined(text: str) -> str:
    """`1,200` becomes 1200 outside brackets; inside them commas separate, and get a space that keeps them apart."""
    text = _BRACED_THOUSANDS.sub("", text)
    pieces: list[str] = []
    inside: list[bool] = []  # of each open bracket: whether commas separate in it
    start = 0
    for token in _TOKEN.finditer(text):
        kind = token.group()
        if kind == ",":
            if inside and inside[-1]:
                pieces += [text[start : token.start()], ", "]
                start = token.end()
            continue
        before, start = text[start : token.start()], token.start()
        pieces.append(before if inside and inside[-1] else _THOUSANDS.sub(_joined, before))
        if kind[-1] in "([{":
            head = text[max(0, token.start() - 40) : token.start()]
            argument = kind == "{" and _ARGUMENT.search(head) is not None
            inside.append(not argument or (bool(inside) and inside[-1]))
        elif inside:
            inside.pop()
    rest = text[start:]
    return "".join([*pieces, rest if inside and inside[-1] else _THOUSANDS.sub(_joined, rest)])


def brackets(text: str) -> str:
    """The kind of the brackets, such as `()` or `[)`, that enclose all of a text and several elements; else ""."""
    opened = {"(": 1, "[": 1, "{": 1, "\\{": 2}.get(text[: 2 if text.startswith("\\") else 1], 0)
    if not opened or text[-1] not in ")]}":
        return ""
    closed = 2 if text.endswith("\\}") else 1
    within = text[opened:-closed]
    depth = 0
    several = False
    for token in _TOKEN.finditer(within):
        if token.group() == ",":
            several = several or depth == 0
        else:
            depth += 1 if token.group()[-1] in "([{" else -1
        if depth < 0:
            return ""
    return text[opened - 1] + text[-1] if several else ""


def elements(text: str) -> list[str]:
    """What commas, semicolons, `or` and `and` separate outside brackets."""
    return _split(text, _BETWEEN)


def is_equation(text: str) -> bool:
    """Whether an equals sign stands outside brackets."""
    return len(_split(text, _EQUALS)) > 1


def assigned(text: str, equal: Callable[[str, str], bool]) -> str | None:
    """`5` of `x = 5`, `7` of `3+4 = 7`, `1, 2` of `x=1, y=2`: the text with the values of its equations in their place.

    None where an equation has anything else on the left than one symbol, or what is `equal` to the right side.
    """
    values = []
    for element in elements(text):
        *lefts, value = (side.strip() for side in _split(element, _EQUALS))
        if not value or not all(left and (_SYMBOL.fullmatch(left) or equal(value, left)) for left in lefts):
            return None
        values.append(value)
    return ", ".join(values)


def _split(text: str, mark: re.Pattern[str]) -> list[str]:
    outside: list[tuple[int, int]] = []  # parts of the text outside brackets
    depth = start = 0
    for token in _TOKEN.finditer(text):
        kind = token.group()[-1]
        if kind == ",":
            continue
        if kind in "([{":
            if depth == 0:
                outside.append((start, token.start()))
            depth += 1
        elif depth > 0:
            depth -= 1
            start = token.end() if depth == 0 else start
    if depth == 0:
        outside.append((start, len(text)))
    cuts = [found.span() for part in outside for found in mark.finditer(text, *part)]
    edges = [0, *(place for cut in cuts for place in cut), len(text)]
    return [text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _joined(found: re.Match[str]) -> str:
    return found.group().replace(",", "")
