"""Equality of what a program returned or printed with what a test expects.

Runs inside the sandbox too, on a bare interpreter: standard library only.
"""

from __future__ import annotations

import math
import re
from typing import Any

from r1ray.rewards.execution.crossing import Handle

_TOLERANCE = 1e-6
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_NUMBER_CHARS = 400


def alike(given: Any, expected: Any) -> bool:
    """Compare values up to what JSON can express: a tuple equals a list, and a key equals its text.

    Floats may differ by a millionth, integers not at all.
    """
    if isinstance(given, list | tuple) and isinstance(expected, list | tuple):
        return len(given) == len(expected) and all(map(alike, given, expected))
    if isinstance(given, dict) and isinstance(expected, dict):
        keys = {str(k): v for k, v in given.items()}
        return keys.keys() == {str(k) for k in expected} and all(alike(keys[str(k)], v) for k, v in expected.items())
    if isinstance(given, Handle) or isinstance(given, bool) != isinstance(expected, bool):
        return False
    if isinstance(given, int | float) and isinstance(expected, int | float):
        integers = isinstance(given, int) and isinstance(expected, int)
        return given == expected if integers else near(given, expected)
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return bool(given == expected)  # fractions and decimals
    return type(given) is type(expected) and bool(given == expected)


def near(given: float, expected: float) -> bool:
    """Whether two numbers are equal, or finite and within a millionth of max(1, |expected|)."""
    if given == expected:
        return True
    try:
        difference, size = abs(float(given) - float(expected)), abs(float(expected))
    except OverflowError:  # an integer larger than any float
        return False
    # If `expected` is infinite, its tolerance would be too.
    return math.isfinite(size) and difference <= _TOLERANCE * max(1.0, size)


def same_output(given: str, expected: str) -> bool:
    """Compare two texts line by line and word by word; trailing white space does not count.

    If a word of `expected` is a number with a decimal point or an exponent (`0.5`, `1e-05`), the
    number in its place may differ by a millionth and may be written in another way.
    """
    left = [line.split() for line in given.rstrip().splitlines()]
    right = [line.split() for line in expected.rstrip().splitlines()]
    return len(left) == len(right) and all(
        len(a) == len(b) and all(map(_same_word, a, b)) for a, b in zip(left, right, strict=True)
    )


def _same_word(given: str, expected: str) -> bool:
    if given == expected:
        return True
    if max(len(given), len(expected)) > _MAX_NUMBER_CHARS:
        return False
    if not (_REAL.fullmatch(given) and _REAL.fullmatch(expected)) or expected.lstrip("+-").isdecimal():
        return False
    return near(float(given), float(expected))
