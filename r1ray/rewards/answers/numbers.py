"""Plain numbers: most answers are, and they are compared here without any algebra system, exactly, in microseconds.

`18`, `-1,234.5`, `1{,}234`, `$18`, `50\\%`, `3/4`, `\\frac{3}{4}`, `2 1/2`, `5 cm`, `1.5e3`, `2.5 million`; each may
stand between $ signs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 400
DECIMAL_TOLERANCE = Fraction(1, 1_000_000)
"""How far a decimal may be from a fraction that it stands for: 0.333333 is 1/3, 0.33 is not."""
DECIMAL_SHARE = Fraction(1, 10_000)
"""And how far as a share of that fraction, so that 0.0 stands for no other number than 0."""

_SPACES = re.compile(r"(?<!\\)\\[,;:! ]|[\s ]+|~")
_WRAPS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_CURRENCY = re.compile(r"^([+-]?)\s*(\\?\$|€|£|¥|₹|US\\?\$|USD)\s*(?=[\d.+-])")
_NUMBER = r"\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?|\d{1,3}(?:[ ]\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+"
_PLAIN = re.compile(
    rf"""(?P<sign>[+-]?)\s?(?:
        (?P<whole>\d+)?\s?\\[dtc]?frac\s?(?:\{{\s?(?P<top>-?\d+)\s?\}}|(?P<top1>\d))\s?
            (?:\{{\s?(?P<bottom>\d+)\s?\}}|(?P<bottom1>\d))
      | (?:(?P<mixed>\d+)\s(?=\d+\s?/))?(?P<over>\d+)\s?/\s?(?P<under>\d+)
      | (?P<number>{_NUMBER})(?:[eE](?P<exponent>[+-]?\d{{1,3}}))?
    )\s?(?P<unit>.*)""",
    re.VERBOSE | re.DOTALL,
)
_SHORT_UNITS = """
    m g s h l L V W J N K A C km cm mm kg mg lb lbs oz ft in mi yd hr hrs min sec ms ml mL mph kmh Hz kHz Pa kPa
    USD EUR GBP deg rad
"""
_UNIT = re.compile(r"(?:[A-Za-z°µΩ¢]+\.?)(?:[ /-][A-Za-z°]+\.?)*(?:\^?\{?[23]\}?|[²³])?")
_LETTER = re.compile(r"[A-Za-z](?:\^?\{?[23]\}?|[²³])?")
_NOT_UNITS = "pi sin cos tan log ln sqrt exp or and to mod inf infinity not by into times over plus minus"
FACTORS = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
"""Words behind a number that multiply it."""
_FACTOR = re.compile(rf"({'|'.join(FACTORS)})s?(?:\s+|$)", re.IGNORECASE)
_PART = "third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth|billionth"
_CARDINAL = (
    "one|two|three|four|five|six|seven|eight|nine|tens?|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    f"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|{'|'.join(FACTORS)}"
)
_NUMBER_WORD = re.compile(
    rf"""(?:factorial|choose|(?:raised|divided|multiplied)(?=\ (?:to|by)\b|$)
      | halves|(?:{_PART})s|(?:squared|cubed|half|{_PART})(?=\ of\b|$)
      | (?:{_CARDINAL})(?!-(?!(?:{_CARDINAL}|(?:first|second|{_PART})s?)(?![a-z]))[a-z]))(?![a-z])""",
    re.IGNORECASE | re.VERBOSE,
)
"""What makes another number of the one before it. Not what is counted as well: dozens, pairs, quarters, half gallons, ten-minute
breaks."""
_DEGREES = re.compile(r"\^\s?\{?\s?\\circ\s?\}?|°|\\degree\b")
_ALIASES = {
    "dollar": "$", "usd": "$", "buck": "$", "euro": "€", "eur": "€", "pound": "£", "gbp": "£", "cent": "¢",
    "hour": "h", "hr": "h", "minute": "min", "second": "s", "sec": "s", "meter": "m", "metre": "m",
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "kilometer": "km", "kilometre": "km",
    "gram": "g", "kilogram": "kg", "liter": "l", "litre": "l", "degree": "°", "deg": "°", "inch": "in",
    "inche": "in", "foot": "ft", "feet": "ft", "mile": "mi", "yard": "yd",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A number as it was written."""

    value: Fraction
    percent: bool  # beside a number without it, 50% is both 50 and 0.5
    decimal: bool  # written with a decimal point, so maybe rounded
    unit: str  # "" where it has none
    letter: bool = False  # the unit is one letter right behind the number: 3m may be three metres, or 3 times m


def unwrapped(text: str) -> str:
    """The text without delimiters of mathematics, `\\text{}`, emphasis, spacing commands and a final full stop."""
    text = text.replace("−", "-").replace("\\$", "$").replace("\\left", "").replace("\\right", "").strip()
    text = _TEXT.sub(r" \1", text)
    text = _SPACES.sub(" ", text).strip()
    for left, right in _WRAPS:
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            text = text[len(left) : -len(right)].strip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip()
    return text


def plain(text: str) -> Plain | None:
    """The number that the text is; None where it is anything else, or has more than MAX_DIGITS digits."""
    if len(text) > 2 * MAX_DIGITS:
        return None
    text = unwrapped(text)
    currency = _CURRENCY.match(text)
    if currency:
        text = currency.group(1) + text[currency.end() :]
    found = _PLAIN.fullmatch(text)
    if not found:
        return None
    factor, rest = _factor(found["unit"].strip())
    percent = rest.lower() in ("%", "\\%", "percent", "pct")
    spaced = factor > 1 or found["unit"] != rest or text[: found.start("unit")].endswith(" ")
    unit = "" if percent else _unit(rest, spaced=spaced)
    value = _value(found)
    if unit is None or value is None:
        return None
    return Plain(
        value=value * factor,
        percent=percent,
        decimal=bool(found["number"]) and "." in found["number"],
        unit=unit or ("$" if currency else ""),
        letter=not spaced and _LETTER.fullmatch(rest) is not None,
    )


def same(truth: Plain, answer: Plain) -> bool:
    """Whether two numbers are equal: as fractions, within `rounding` of the truth where one of the two is a decimal."""
    decimal = truth.decimal != answer.decimal
    return any(abs(a - b) <= (rounding(a) if decimal else 0) for a, b in _readings(truth, answer))


def close(truth: Plain, answer: Plain, *, absolute: float, relative: float) -> bool:
    """Whether |answer - truth| <= absolute + relative * |truth|, with percent and units read as by `same`."""
    limit, share = Fraction(absolute), Fraction(relative)
    return any(abs(a - b) <= limit + share * abs(a) for a, b in _readings(truth, answer))


def rounding(value: Fraction) -> Fraction:
    """How far a decimal that stands for `value` may be from it."""
    return min(DECIMAL_TOLERANCE, DECIMAL_SHARE * abs(value))


def _readings(truth: Plain, answer: Plain) -> list[tuple[Fraction, Fraction]]:
    """The pairs of values of which one must be equal; none where the units, or what may be a variable, differ.

    A unit may be left out; only what looks like a variable in the truth may not.
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
        # Who says 0.5% of what is a half has taken the share for a percentage.
        values = (answer.value, answer.value / 100) if abs(answer.value) >= 1 else (answer.value / 100,)
        return [(truth.value, value) for value in values]
    return [] if truth.unit and answer.unit and truth.unit != answer.unit else [(truth.value, answer.value)]


def _value(found: re.Match[str]) -> Fraction | None:
    sign = -1 if found["sign"] == "-" else 1
    if found["number"]:
        digits = found["number"].replace("{,}", "").replace(",", "").replace(" ", "")
        if len(digits) > MAX_DIGITS:
            return None
        return sign * Fraction(digits.rstrip(".")) * Fraction(10) ** int(found["exponent"] or 0)
    top = int(found["top"] or found["top1"] or found["over"])
    bottom = int(found["bottom"] or found["bottom1"] or found["under"])
    whole = int(found["whole"] or found["mixed"] or 0)
    return sign * (whole + Fraction(top, bottom)) if bottom else None


def _factor(text: str) -> tuple[int, str]:
    """What the words at the front multiply the number by, and the unit behind them: 10**5 and "km" for "hundred thousand km"."""
    factor = 1
    while word := _FACTOR.match(text):
        factor *= FACTORS[word[1].lower()]
        text = text[word.end() :]
    return factor, text


def _unit(text: str, *, spaced: bool) -> str | None:
    """The unit in a normal form, "" for none; None where the text is no unit but, say, a variable."""
    if not text:
        return ""
    if _DEGREES.fullmatch(text):
        return "°"
    if not _UNIT.fullmatch(text) or _NUMBER_WORD.match(text):
        return None
    first = re.split(r"[ /^.-]", text, maxsplit=1)[0].rstrip("0123456789²³")
    if first.lower() in _NOT_UNITS.split() or (first not in _SHORT_UNITS.split() and not (spaced and len(first) >= 3)):
        return None
    normal = (
        text.lower().rstrip(".").replace("^", "").replace("{", "").replace("}", "").replace("²", "2").replace("³", "3")
    )
    normal = normal[:-1] if len(normal) > 2 and normal.endswith("s") else normal
    return _ALIASES.get(normal, normal)
