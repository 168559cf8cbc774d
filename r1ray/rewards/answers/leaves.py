"""Equality of two answers without an outer form: numbers, times, ratios, digits in a base, residues,
words, and expressions.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from r1ray.rewards.answers.algebra import alike, is_below_one, is_scalar, parsed
from r1ray.rewards.answers.latex import cleaned, squeezed
from r1ray.rewards.answers.numbers import plain_of, same
from r1ray.rewards.answers.outline import Group, Leaf
from r1ray.rewards.answers.units import agree, split

_TIME = re.compile(
    r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*(?:\\text\{)?\s*(?:([ap])\.?\s*m\.?|(?:h|hrs?|o'clock|Uhr))?\s*\}?",
    re.IGNORECASE,
)
_RATIO = re.compile(r"[^:]+(?::[^:]+)+")
_BASED = re.compile(r"\(?\s*(?:\\text\{)?\s*([0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)\s*\}?\s*\)?\s*_\s*(\{.*\}|\d)")
_SPOKEN_BASE = re.compile(
    r"([0-9A-Fa-f]+)\s*(?:\\text\{)?\s*(?:\(?\s*in\s+)?\(?base\s*[- }]?\s*(\w+)\s*\)?\s*\}?", re.IGNORECASE
)
_NUMBER_NAMES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen"""
_BASES = _NUMBER_NAMES.split()
_MODULUS = r"\s*\}?\s*\{?\s*(\d+)\s*\}?\s*\)?"
_RESIDUE = re.compile(rf"(.+?)\s*(?:\\pmod|\(\s*(?:\\text\{{)?\s*\\?b?mod){_MODULUS}")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{\w+\}")
_FOREIGN = re.compile(r"[^\W\d_A-Za-zα-ωΑ-Ω°µ]")
_FUNCTIONS = """sin cos tan cot sec csc log ln exp sqrt min max gcd lcm mod det inf infinity arcsin arccos arctan sinh
    cosh tanh"""
_NAMES = frozenset(_FUNCTIONS.split())
_CURRENCY = re.compile(r"^([+-]?)\s*(?:\\\$|\$|€|£|¥|₹)\s*")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])\s?")
_SHORT_WORDS = frozenset(("no",))


def with_both_signs(leaf: Leaf) -> Leaf | Group:
    """The list of both values of an expression with a plus-minus sign."""
    if not _PLUS_MINUS.search(leaf.text):
        return leaf
    plus = _PLUS_MINUS.sub(lambda found: "+" if found[1] == "pm" else "-", leaf.text)
    minus = _PLUS_MINUS.sub(lambda found: "-" if found[1] == "pm" else "+", leaf.text)
    return Group("", (Leaf(plus.removeprefix("+")), Leaf(minus.removeprefix("+"))))


def equal(truth: str, answer: str, *, is_real: bool = True) -> bool:
    """Whether two cleaned texts without an outer form are the same answer."""
    truth, answer = cleaned(truth), cleaned(answer)
    if not truth or not answer:
        return False
    if squeezed(truth) == squeezed(answer):
        return True
    if (verdict := _as_times(truth, answer)) is not None:
        return verdict
    if (verdict := _in_bases(truth, answer)) is not None:
        return verdict
    first, second = plain_of(truth), plain_of(answer)
    if first and second:
        return same(first, second)
    if (verdict := _as_residues(truth, answer, is_real)) is not None:
        return verdict
    if (verdict := _as_ratios(truth, answer, is_real)) is not None:
        return verdict
    return _values(truth, answer, is_real)


def _as_times(truth: str, answer: str) -> bool | None:
    first, second = _TIME.fullmatch(truth), _TIME.fullmatch(answer)
    if not first or not second:
        # 8:00 is no ratio, and is not 8
        return False if any(found and found[2] == "00" for found in (first, second)) else None
    half = first[4] and second[4] and first[4].lower() != second[4].lower()
    return not half and all(int(first[k] or 0) == int(second[k] or 0) for k in (1, 2, 3))


def _in_bases(truth: str, answer: str) -> bool | None:
    """Digits in a base are equal only if digits and base are; the base may be left out,
    but the digits not converted.
    """
    first, second = _based(truth), _based(answer)
    if first is None and second is None:
        return None
    digits, base = first or (_digits(truth), None)
    others, other_base = second or (_digits(answer), None)
    return digits == others and (base is None or other_base is None or base == other_base)


def _based(text: str) -> tuple[str, int] | None:
    found = _BASED.fullmatch(text) or _SPOKEN_BASE.fullmatch(text)
    if not found:
        return None
    name = _TEXT.sub(r"\1", found[2]).strip("{} ").lower()
    base = int(name) if name.isdigit() and len(name) < 3 else _BASES.index(name) if name in _BASES else 0
    digits = _digits(found[1])
    fits = base >= 2 and re.search(r"[0-9]", digits) and all(int(d, 16) < base for d in digits if d != ".")
    return (digits, base) if fits else None  # a_1 and F_4 are names


def _digits(text: str) -> str:
    return text.replace(" ", "").replace("{,}", "").replace(",", "").upper().lstrip("0") or "0"


def _as_residues(truth: str, answer: str, is_real: bool) -> bool | None:
    """`4 \\pmod 9` and `13 \\pmod 9` are equal; a residue without its modulus is its number."""
    first, second = _RESIDUE.fullmatch(truth), _RESIDUE.fullmatch(answer)
    if not first and not second:
        return None
    one, other = first[1] if first else truth, second[1] if second else answer
    if first and second and int(first[2]) != int(second[2]):
        return False
    left, right = plain_of(one), plain_of(other)
    if first and second and left and right and int(first[2]):
        return (left.value - right.value) % int(first[2]) == 0
    return equal(one, other, is_real=is_real)


def _as_ratios(truth: str, answer: str, is_real: bool) -> bool | None:
    """3:8, 6:16 and 3/8 are equal, and 3:4:5 and 6:8:10."""
    if not _RATIO.fullmatch(truth) and not _RATIO.fullmatch(answer):
        return None
    one, other = _terms(truth, is_real), _terms(answer, is_real)
    if one is None or other is None:
        return None
    if len(one) == 1 and len(other) == 2:
        one = [one[0], parsed("1")]
    elif len(other) == 1 and len(one) == 2:
        other = [other[0], parsed("1")]
    if len(one) != len(other) or any(term == 0 for term in (one[-1], other[-1])):
        return False
    return all(alike(a * other[-1], b * one[-1]) for a, b in zip(one, other, strict=True))


def _terms(text: str, is_real: bool) -> list[Any] | None:
    terms = [parsed(part.strip(), is_real=is_real) for part in text.split(":")]
    return terms if all(map(is_scalar, terms)) else None


def _values(truth: str, answer: str, is_real: bool) -> bool:
    one, other = _with_unit(truth), _with_unit(answer)
    if _is_prose(one[0]) or _is_prose(other[0]):
        return _words(truth) == _words(answer)
    (value, unit, factor), (given, other_unit, other_factor) = one, other
    if unit and other_unit and "%" not in (unit, other_unit) and not agree(unit, other_unit):
        return False
    left, right = parsed(value, is_real=is_real), parsed(given, is_real=is_real)
    if left is None or right is None:
        return False
    if not (is_scalar(left) and is_scalar(right)):
        return alike(left, right)
    if factor != 1 or other_factor != 1:
        left, right = left * factor, right * other_factor
    if (unit == "%") == (other_unit == "%"):
        return alike(left, right)
    if unit == "%":
        return not other_unit and (alike(left, right) or alike(left, 100 * right))
    # An answer of \\frac{\\sqrt{2}}{2}\\% for that root has taken the share for a percentage.
    return not unit and (alike(100 * left, right) or (alike(left, right) and not is_below_one(right)))


def _with_unit(text: str) -> tuple[str, str, int]:
    text = _CURRENCY.sub(r"\1", text)
    if found := plain_of(text):
        return (text, "", 1) if not (found.unit or found.percent) or found.letter else _number_apart(text)
    return split(text) or (text, "", 1)


def _number_apart(text: str) -> tuple[str, str, int]:
    number = plain_of(text)
    assert number is not None  # the caller has seen it
    value: Fraction = number.value
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}", "%" if number.percent else number.unit, 1


def _is_prose(text: str) -> bool:
    """Whether the text has a word, which an algebra system would take for a product of its letters."""
    plain_text = _ENVIRONMENT.sub(" ", text)
    inside = [found.strip().lower() for found in _TEXT.findall(plain_text)]
    if any(re.search(r"[^\W\d_]{2,}|[^\W\d_][^\w]+[^\W\d_]", word) and word not in _NAMES for word in inside):
        return True
    plain_text = _TEXT.sub(" ", plain_text)
    plain_text = re.sub(r"(?<=[\w}])_\{[^{}]*\}", " ", plain_text)
    words = _WORD.findall(plain_text)
    return (
        any(w.lower() not in _NAMES for w in words) or bool(_FOREIGN.search(plain_text)) or text.lower() in _SHORT_WORDS
    )


def _words(text: str) -> list[str]:
    text = _TEXT.sub(r" \1 ", text).casefold()
    return re.sub(r"(?<=\W)\s+|\s+(?=\W)", "", re.sub(r"[{}$]", "", text).strip()).split()
