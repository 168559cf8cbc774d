"""Plain numbers: most answers are, and they are compared here without an algebra system, exactly, in microseconds.

`18`, `-1,234.5`, `1{,}234`, `$18`, `50\\%`, `3/4`, `\\frac{3}{4}`, `2 1/2`, `5 cm`, `1.5e3`, `1.5 \\times 10^3`,
`10^4`, `2.5 million`; each may stand between $ signs and in the wrappers that `latex.cleaned` knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from r1ray.rewards.answers.latex import cleaned
from r1ray.rewards.answers.units import agree, number_and_unit, unit_of

MAX_DIGITS = 400
DECIMAL_TOLERANCE = Fraction(1, 1_000_000)
"""Largest distance of a decimal from a fraction that it may spell: 0.333333 is 1/3, 0.33 is not."""
DECIMAL_SHARE = Fraction(1, 10_000)
"""The same as a share of that fraction, so that 0.0 equals no number but 0."""

_SIMPLE = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")
_CURRENCY = re.compile(r"^([+-]?)\s*(US\\?\$|USD|\\?\$|€|£|¥|₹|₽|₩|Rs\.?)\s*(?=[\d.+-])")
_TEXT = re.compile(r"\s*\\text\s*\{([^{}]*)\}")
_NUMBER = r"\d{1,3}(?:(?:,|\s?\{\s?,\s?\}\s?)\d{3})+(?:\.\d+)?|\d{1,3}(?:[ ]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+"
_SEPARATORS = re.compile(r"[\s{},]")
_TIMES_TEN = r"(?:\s?(?:\\times|\\cdot|\*)\s?10\s?\^\s?(?:\{\s?(?P<power>[+-]?\d{1,3})\s?\}|(?P<power1>\d)(?!\d)))"
_PLAIN = re.compile(
    rf"""(?P<sign>[+-]?)\s?(?:
        (?P<whole>\d+)?\s?\\frac\s?(?:\{{\s?(?P<top>-?\d+)\s?\}}|(?P<top1>\d))\s?
            (?:\{{\s?(?P<bottom>\d+)\s?\}}|(?P<bottom1>\d))
      | (?:(?P<mixed>\d+)\s(?=\d+\s?/))?(?P<over>\d+)\s?/\s?(?P<under>\d+)
      | 10\s?(?:\^|\*\*)\s?(?:\{{\s?(?P<ten>[+-]?\d{{1,3}})\s?\}}|(?P<ten1>\d{{1,3}}))
      | (?P<number>{_NUMBER})(?:[eE](?P<exponent>[+-]?\d{{1,3}})(?!\d)|{_TIMES_TEN})?
    )\s?(?P<unit>.*)""",
    re.VERBOSE | re.DOTALL,
)
_LETTER = re.compile(r"[A-Za-z](?:\^?\{?[23]\}?|[²³])?")
_SIGNS = {"US$": "$", "USD": "$", r"\$": "$", r"US\$": "$", "¥": "¥", "₽": "руб", "₩": "원", "Rs": "₹", "Rs.": "₹"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A number as it was written."""

    value: Fraction
    percent: bool  # beside a number without it, 50% is both 50 and 0.5
    decimal: bool  # written with a decimal point, so maybe rounded
    unit: str  # "" for none
    letter: bool = False  # the unit is one letter right behind the number: 3m may be three metres, or 3 times m


def unwrapped(text: str) -> str:
    """The cleaned text without the command `\\text`, for answers that are words."""
    return " ".join(_TEXT.sub(r" \1", cleaned(text)).replace("\\$", "$").split())


def plain(text: str) -> Plain | None:
    """The number that the text is; None if it is anything else, or has more than MAX_DIGITS digits."""
    if len(text) > 2 * MAX_DIGITS:
        return None
    if simple := _SIMPLE.fullmatch(text):  # most answers, without any of the work below
        whole = simple[2].replace(",", "")
        if len(whole) > MAX_DIGITS:
            return None
        value = Fraction(whole + simple[3]) if simple[3] else Fraction(int(whole))
        return Plain(value=-value if simple[1] == "-" else value, percent=False, decimal=bool(simple[3]), unit="")
    return plain_of(cleaned(text))


def plain_of(text: str) -> Plain | None:
    """`plain` of a text that is cleaned already."""
    if len(text) > 2 * MAX_DIGITS:
        return None
    text = _TEXT.sub(r" \1", text).strip()
    currency = _CURRENCY.match(text)
    if currency:
        text = currency.group(1) + text[currency.end() :]
    found = _PLAIN.fullmatch(text)
    if not found:
        return None
    factor, rest = number_and_unit(found["unit"])
    rest = rest.strip()
    percent = rest.lower() in ("%", "\\%", "percent", "percentage", "pct")
    spaced = factor > 1 or text[: found.start("unit")].endswith(" ")
    unit = "" if percent else unit_of(rest, spaced=spaced)
    value = _value(found)
    if unit is None or value is None:
        return None
    return Plain(
        value=value * factor,
        percent=percent,
        decimal=bool(found["number"]) and "." in found["number"],
        unit=unit or (_SIGNS.get(currency[2], currency[2]) if currency else ""),
        letter=not spaced and _LETTER.fullmatch(rest) is not None,
    )


def same(truth: Plain, answer: Plain) -> bool:
    """Whether two numbers are equal: as fractions,
    or within `rounding` of the truth if only one of them is a decimal.
    """
    decimal = truth.decimal != answer.decimal
    return any(abs(a - b) <= (rounding(a) if decimal else 0) for a, b in _readings(truth, answer))


def close(truth: Plain, answer: Plain, *, absolute: float, relative: float) -> bool:
    """Whether |answer - truth| <= absolute + relative * |truth|, with percent and units read as by `same`."""
    limit, share = Fraction(absolute), Fraction(relative)
    return any(abs(a - b) <= limit + share * abs(a) for a, b in _readings(truth, answer))


def rounding(value: Fraction) -> Fraction:
    """Largest distance from `value` of a decimal that may spell it."""
    return min(DECIMAL_TOLERANCE, DECIMAL_SHARE * abs(value))


def _readings(truth: Plain, answer: Plain) -> list[tuple[Fraction, Fraction]]:
    """The pairs of values of which one must be equal; none if the units, or what may be a variable, differ.

    A unit may be left out, but not what looks like a variable in the truth.
    """
    if truth.percent and answer.percent:
        return [(truth.value, answer.value)]
    if truth.letter and answer.unit != truth.unit:
        return []
    if truth.percent or answer.percent:
        if truth.unit or answer.unit:
            return []
        if truth.percent:
            return [(truth.value, answer.value), (truth.value / 100, answer.value)]
        # An answer of 0.5% for a half has taken the share for a percentage.
        values = (answer.value, answer.value / 100) if abs(answer.value) >= 1 else (answer.value / 100,)
        return [(truth.value, value) for value in values]
    return [(truth.value, answer.value)] if agree(truth.unit, answer.unit) else []


def _value(found: re.Match[str]) -> Fraction | None:
    sign = -1 if found["sign"] == "-" else 1
    if found["number"]:
        digits = _SEPARATORS.sub("", found["number"])
        if len(digits) > MAX_DIGITS:
            return None
        power = int(found["exponent"] or found["power"] or found["power1"] or 0)
        return sign * Fraction(digits.rstrip(".")) * Fraction(10) ** power
    if ten := found["ten"] or found["ten1"]:
        return sign * Fraction(10) ** int(ten)
    top = int(found["top"] or found["top1"] or found["over"])
    bottom = int(found["bottom"] or found["bottom1"] or found["under"])
    whole = int(found["whole"] or found["mixed"] or 0)
    return sign * (whole + Fraction(top, bottom)) if bottom else None
