"""Exact equality of two mathematical expressions, by latex2sympy and sympy. For worker processes only: sympy may hang.

Rationals are compared as such, other numbers by the distance between them, computed to hundreds of digits; nothing is
rounded. Only if one side is written with a decimal point, and the other is not, may they differ by
`numbers.rounding`. Letters keep their case.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig
from latex2sympy2_extended.math_normalization import normalize_latex
from sympy import Expr, Float, MatrixBase, MatrixExpr, Rational, Set, Tuple

from r1ray.rewards.answers.numbers import rounding

_CONVERSION = ConversionConfig(lowercase_symbols=False)
_SURFACE = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none")
_COMPLEX = re.compile(r"\\mathbb\{C\}|(?<![A-Za-z])i(?![A-Za-z])|\\imath|(?<=\d)i(?![A-Za-z])|\\det|\\arg|\\Re|\\Im")
_TEXT = re.compile(r"\\text\{\s*([A-Za-z])\s*\}")
_NAMED = re.compile(r"\\text\{\s*(sin|cos|tan|cot|sec|csc|log|ln|exp|min|max|gcd|lcm|det)\s*\}")
_RENAMED: tuple[tuple[re.Pattern[str], Any], ...] = (
    # The library takes gamma for a constant, I for the imaginary unit, drops primes, and does not know symbols in
    # subscripts.
    (re.compile(r"\\(gamma|Gamma|Beta|Alpha)(?![A-Za-z])(?!\s*\()"), r"\\text{\1 letter}"),
    (re.compile(r"(?<![A-Za-z\\{])I(?![A-Za-z])"), r"\\text{I letter} "),
    (re.compile(r"(?<=[A-Za-z])('+)"), lambda found: f"_{{{len(found[1]) * 'prime'}}}"),
    (
        re.compile(
            r"_\s*(?:\{\s*\\(?:text\{\s*([A-Za-z]+)\s*\}|([A-Za-z]+))\s*\}|\\text\{\s*([A-Za-z]+)\s*\}|\\(?!frac|text)([A-Za-z]+))"
        ),
        lambda found: "_{" + next(filter(None, found.groups())) + "}",
    ),
    (re.compile(r"°"), r"^{\\circ}"),
    (re.compile(r"\\bmod(?![A-Za-z])"), r"\\mod"),
    (re.compile(r"\\lg(?![A-Za-z])"), r"\\log_{10}"),
    (re.compile(r"\\bar\s+([A-Za-z])"), r"\\bar{\1}"),
)
_BASED = re.compile(r"\d\s*_")
_ASCII = (
    (re.compile(r"(?<!\\)\bsqrt\s*\(([^()]*)\)|√\s*\(([^()]*)\)"), r"\\sqrt{\1\2}"),
    (re.compile(r"√\s?(\w+)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln|exp)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])inf(?:inity)?(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<=[^\s*])\s*\*\s*(?=[^\s*])"), r" \\cdot "),
    (re.compile(r"(?<![\d.])\.(?=\d)"), "0."),
)
_POWER_OF_TEN = re.compile(r"(?<![A-Za-z\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w.])")
_PERMUTATIONS = re.compile(r"(?<![A-Za-z\\}])([ACP])_\{?(\d+)\}?\^\{?(\d+)\}?")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s?\{?(\d+)\}?")
MAX_NESTING = 48
"""No answer has deeper brackets."""
_DIGITS = 60
_MORE_DIGITS = 600
_LONGEST_BITS = 15_000
_POINTS = 6


def is_complex(*texts: str) -> bool:
    """Whether a text uses the imaginary unit or what else makes its letters complex numbers."""
    return any(_COMPLEX.search(text) is not None for text in texts)


@lru_cache(maxsize=256)
def parsed(text: str, *, is_real: bool = True) -> Any:
    """The sympy object of a cleaned text; None if it is no mathematics. `is_real`: its letters are real numbers."""
    if _is_nested(text):
        return None  # the parser would take seconds
    latex = _NAMED.sub(r"\\\1 ", _TEXT.sub(r" \1 ", text))
    if _BASED.search(latex):
        return None  # digits in another base, which the library would read as decimal
    for pattern, replacement in _ASCII:
        latex = pattern.sub(replacement, latex)
    for pattern, replacement in _RENAMED:
        latex = pattern.sub(replacement, latex)
    latex = _POWER_OF_TEN.sub(r"\1 \\cdot 10^{\2}", latex)
    latex = _PERMUTATIONS.sub(_counted, _REPEATING.sub(_fraction, latex))
    try:
        found = latex2sympy(
            normalize_latex(_grouped(latex), _SURFACE),
            is_real=is_real or None,
            convert_degrees=True,
            normalization_config=None,
            conversion_config=_CONVERSION,
        )
        if not is_real:
            found = found.xreplace({symbol: sympy.I for symbol in found.free_symbols if symbol.name in ("i", "imath")})
        return found
    except (MemoryError, RecursionError):
        raise
    except (
        Exception
    ):  # the parser raises anything for text that is no mathematics: such an answer is wrong, not in error
        return None


def _is_nested(text: str) -> bool:
    depth = 0
    for bracket in re.findall(r"[({\[)}\]]", text):
        depth += 1 if bracket in "({[" else -1
        if depth > MAX_NESTING:
            return True
    return False


def alike(one: Any, other: Any) -> bool:
    """Whether two objects of `parsed` are equal. What cannot be computed equals nothing."""
    if one is None or other is None:
        return False
    one, other = _done(one), _done(other)
    if isinstance(one, MatrixBase) or isinstance(other, MatrixBase):
        return (
            isinstance(one, MatrixBase)
            and isinstance(other, MatrixBase)
            and one.shape == other.shape
            and all(map(alike, one.flat(), other.flat()))
        )
    if isinstance(one, Set) and isinstance(other, Set):
        return bool(one == other or one.symmetric_difference(other) == sympy.S.EmptySet)
    if isinstance(one, Tuple) and isinstance(other, Tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if is_scalar(one) and is_scalar(other):
        return _equal(one, other)
    return bool(one == other)


def is_scalar(value: Any) -> bool:
    """Whether the value is a number or an expression for one, and no set or matrix."""
    return isinstance(value, Expr) and not isinstance(value, MatrixExpr)


def proportional(one: Any, other: Any) -> Any:
    """The number c with one = c * other, c not 0; None if there is none."""
    one, other = _done(one), _done(other)
    if not (is_scalar(one) and is_scalar(other)):
        return None
    if not one.free_symbols or one.free_symbols != other.free_symbols:
        return None
    for point in range(_POINTS):
        values = _values_at(point, one.free_symbols)
        below = _exact(other.subs(values))
        if not below.is_finite or _is_zero_number(below):
            continue
        factor = sympy.nsimplify(_exact(one.subs(values)) / below)
        if factor.is_finite and factor.is_real and factor != 0 and _is_zero(_exact(one) - factor * _exact(other)):
            return factor
    return None


def is_below_one(value: Any) -> bool:
    """Whether the value is a number between -1 and 1."""
    number = abs(_done(value).evalf(30)) if isinstance(value, Expr) and not value.free_symbols else None
    return number is not None and bool(number.is_Float or number.is_Rational) and bool(number < 1)


def _done(value: Any) -> Any:
    return value.doit() if hasattr(value, "doit") else value


def _exact(value: Expr) -> Expr:
    """With the decimals as the fractions that they spell."""
    floats: Iterable[Float] = value.atoms(Float)
    return value.xreplace({number: Rational(str(number)) for number in floats})


def _equal(one: Expr, other: Expr) -> bool:
    if one == other:
        return one is not sympy.nan and one != sympy.zoo
    if one.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo) or other.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        return False
    decimal = one.has(Float) != other.has(Float)
    first, second = _exact(one), _exact(other)
    if decimal and not (first.free_symbols or second.free_symbols):
        return _near(first, second)
    return _is_zero(first - second)


def _near(truth: Expr, answer: Expr) -> bool:
    values = [value.evalf(30) for value in (truth, answer)]
    parts = [part for value in values for part in value.as_real_imag()]
    if not all(part.is_Number and part.is_finite for part in parts):
        return False
    a, b, c, d = (Fraction(str(part)) for part in parts)
    return all(abs(x - y) <= rounding(x) for x, y in ((a, c), (b, d)))


def _is_zero(value: Expr) -> bool:
    if value.is_Rational:
        return bool(value == 0)
    if not value.free_symbols:
        return _is_zero_number(value)
    first = _vanishes(value, 0)  # before what may take long for a wrong answer
    if first is False:
        return False
    if sympy.expand(value) == 0:
        return True
    rest = (_vanishes(value, point) for point in range(1, _POINTS))
    verdicts = [verdict for verdict in (first, *rest) if verdict is not None]
    if not all(verdicts):
        return False
    simple = sympy.simplify(value)
    if simple.is_Rational:
        return bool(simple == 0)
    return len(verdicts) >= 3  # equal to hundreds of digits at every point at which it has a value


def _values_at(point: int, symbols: Iterable[Any]) -> dict[Any, Rational]:
    """Numbers of either sign for the letters, the same each time. No simple relation holds between them, as between
    equidistant ones, for which a + c = 2b.
    """
    draw = random.Random(point)
    return {symbol: Rational(draw.randint(-3000, 3000), draw.randint(101, 997)) for symbol in sorted(symbols, key=str)}


def _vanishes(value: Expr, point: int) -> bool | None:
    """Whether it is 0 with numbers for its letters; None if it has no value there."""
    number = value.subs(_values_at(point, value.free_symbols), simultaneous=True)
    if number.has(sympy.nan, sympy.zoo, sympy.oo) or number.free_symbols:
        return None
    return _is_zero_number(number)


def _is_zero_number(value: Expr) -> bool:
    """Whether a number is 0: exactly for rationals,
    else as far as some hundred digits more than it is written with show.
    """
    value = _done(value)
    if value.is_Rational:
        return bool(value == 0)
    longest = max((max(abs(number.p), number.q).bit_length() for number in value.atoms(Rational)), default=1)
    size = min(longest, _LONGEST_BITS) // 3
    for digits in (_DIGITS, _MORE_DIGITS + 4 * size):
        known = [_is_far(part) for part in value.evalf(15, maxn=digits).as_real_imag()]
        if True in known:
            return False
    return bool(None not in known)


def _is_far(part: Expr) -> bool | None:
    """Whether an evaluated number is certainly not 0; None if it is no number."""
    if part == 0:
        return False
    if not part.is_Float:
        return None if not part.is_Rational else True
    return bool(part._prec > 1)


def _grouped(latex: str) -> str:
    """With brackets for the braces that are no arguments of a command: a set would be read there."""
    out: list[str] = []
    closers: list[str] = []
    for piece in re.split(r"(\\[{}]|[{}])", latex):
        if piece == "{":
            before = "".join(out[-2:]).rstrip()
            argument = re.search(r"(?:\\[A-Za-z]+|[}\]^_])$", before) is not None
            out.append("{" if argument else "(")
            closers.append("}" if argument else ")")
        elif piece == "}" and closers:
            out.append(closers.pop())
        else:
            out.append(piece)
    return "".join(out)


def _fraction(found: re.Match[str]) -> str:
    whole, fixed, cycle = found.groups()
    if len(whole + fixed + cycle) > 40:
        return found.group()
    bottom = int("9" * len(cycle) + "0" * len(fixed))
    top = int((whole or "0") + fixed + cycle) - int((whole or "0") + fixed)
    return rf"\frac{{{top}}}{{{bottom}}}"


def _counted(found: re.Match[str]) -> str:
    """Permutations and combinations in the notation of East Asian books: A_8^3, C_8^3."""
    kind, n, k = found.groups()
    over = rf"\binom{{{n}}}{{{k}}}"
    return over if kind == "C" else rf"{over} \cdot {k}!"
