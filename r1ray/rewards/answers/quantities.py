"""Left sides of equations: what names a quantity, so that `|AB| = 3` is the answer 3,
and what does not (`x + y = 3`).
"""

from __future__ import annotations

import re

from r1ray.rewards.answers.latex import cleaned, squeezed

_SUBSCRIPT = r"(?:_(?:\w|\\[A-Za-z]+|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}))?"
_LETTERS = (
    r"(?:[A-Za-z]|[A-Z]{2,4}|\\(?!frac|sqrt|text|sin|cos|tan|log|ln|times|cdot|pm|binom|infty|pi(?![A-Za-z]))[A-Za-z]+)"
)
_NAME = rf"{_LETTERS}\s*'*\s*{_SUBSCRIPT}\s*'*"
_FIGURE = (
    r"\\(?:angle|triangle|measuredangle|overline|overrightarrow|vec|hat|bar|widehat|odot|arc)\s*"
    r"(?:\{[^{}]*\}|[A-Za-z]{1,4}\d?)"
)
_CALL = (
    r"(?:[fghFGHPEVTNSpuvq](?:_\w|_\{\w+\})?'*(?:\^\{-1\})?\s*\([^()]*\)"
    r"|[A-Za-z]\s*\(\s*[a-z]\s*\))"
)
_FUNCTION = (
    r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|max|min|lim|gcd|det)\s*(?:\^\{?-?\d\}?)?\s*(?:_\{[^{}]*\}|_\w)?"
    rf"\s*\(?\s*(?:{_NAME}|{_FIGURE})?\s*\)?"
)
_MEASURE = rf"\|\s*(?:{_NAME}|{_FIGURE}|[A-Za-z]{{1,3}})\s*\||\[\s*[A-Z]{{3,6}}\s*\]|m\s*{_FIGURE}"
_WORDS = r"\\text\s*\{[^{}]*\}(?:\s*(?:of|in|=)?\s*[A-Za-z]{0,4})?|[A-Za-z]{3,}(?:\s+[A-Za-z]+){0,6}"
_ATOM = rf"(?:{_MEASURE}|{_FIGURE}|{_FUNCTION}|{_CALL}|{_NAME}|{_WORDS})"
_TUPLE = rf"\(\s*{_NAME}(?:\s*,\s*{_NAME})+\s*\)"
_RATIO = rf"\\frac\s*\{{\s*{_ATOM}\s*\}}\s*\{{\s*{_ATOM}\s*\}}|{_ATOM}(?:\s*[:/]\s*{_ATOM})+"
_QUANTITY = re.compile(rf"(?:{_TUPLE}|{_RATIO}|{_ATOM})")
_COUNT = re.compile(r"[A-Za-z]_\{?\d+\}?\^\{?\d+\}?")
_INDEX = re.compile(r"_(?:\d+|\{\d+\})$")
_VISIBLE = re.compile(r"\\(?:overline|vec|overrightarrow|text|angle|left|right)(?![A-Za-z])|[|{}\s]")
_MAX_CHARS = 120


def is_quantity(text: str) -> bool:
    """Whether a cleaned text names one quantity, a ratio of two, or a tuple of names."""
    return len(text) <= _MAX_CHARS and (_QUANTITY.fullmatch(text) is not None or _COUNT.fullmatch(text) is not None)


def same_quantity(one: str, other: str) -> bool:
    """Whether two quantities may be the same: by name, `f(x)` and `y`, or words beside a name."""
    first, second = (_VISIBLE.sub("", squeezed(text)) for text in (one, other))
    if first == second:
        return True
    names = {first, second}
    if "y" in names and any(re.fullmatch(r"[fgh]\(x\)", name) for name in names):
        return True
    return _is_words(one) != _is_words(other)


def assigned(text: str) -> str:
    """`9` of `y = 9`, and of `|AB| = 9`; every other text as it is."""
    left, equals, right = text.rpartition("=")
    return right if equals and is_quantity(cleaned(left)) else text


def base_of(text: str) -> str:
    """The name without its index: x of x_1 and x_2."""
    return _INDEX.sub("", squeezed(text))


def _is_words(text: str) -> bool:
    return re.search(r"(?<!\\)[A-Za-z]{3,}", text.replace(r"\text", "")) is not None
