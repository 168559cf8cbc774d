"""Units: the words behind a value, which may be left out. `split` separates a value from its unit.

    unit  = word { separator word } [ exponent ]    5 km, 60 miles per hour, 9 m / s^{2}, 2\\sqrt{3}\\text{ cm}^2, 46本
    word  = \\text{...} | a known short unit | three or more letters behind a space | a word in another script

A bare letter behind a root, a bracket or another letter is a variable: 3\\pi s is no time. Number words multiply
(`5 million`, `5万`); words that make another number of the one before them (`3 squared`, `2 thirds`, `3的平方`) are
no units.
"""

from __future__ import annotations

import functools
import re

_OTHER_WORDS = """pi sin cos tan log ln sqrt exp or and to mod inf infinity not by into times over plus minus if when
    where"""
_NOT_UNITS = frozenset(_OTHER_WORDS.split())
FACTORS = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
"""Words behind a number that multiply it."""
_OTHER_FACTORS = {
    word: 10**power
    for power, words in {
        2: "百 백", 3: "千 천 тысяч тысячи тысяча тыс", 4: "万 萬 만", 6: "миллион миллиона миллионов млн",
        8: "亿 億 억", 9: "миллиард миллиарда миллиардов млрд",
    }.items()
    for word in words.split(" ")
}  # fmt: skip
_FACTOR = re.compile(rf"\s*(?:\\text\{{)?\s*({'|'.join(FACTORS)})s?(?![A-Za-z-])\s*", re.IGNORECASE)
_OTHER_FACTOR = re.compile(
    rf"\s*(?:([百千万萬亿億백천만억])|({'|'.join(w for w in _OTHER_FACTORS if len(w) > 1)})(?!\w)\.?)\s*"
)
_PART = "third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth|billionth"
_CARDINAL = (
    "one|two|three|four|five|six|seven|eight|nine|tens?|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    f"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|{'|'.join(FACTORS)}"
)
_NUMBER_WORD = re.compile(
    rf"""(?:factorial|choose|(?:raised|divided|multiplied)(?=\ (?:to|by)\b|$)
      | halves|(?:{_PART})s|(?:squared|cubed|half|{_PART})(?=\ of\b|$)
      | (?:{_CARDINAL})(?!-(?!(?:{_CARDINAL}|(?:first|second|{_PART})s?)(?![a-z]))[a-z]))(?![a-z])
      | 分之|分の|の|的|의|之|乘|加|减|減|除|和|或|と|以上|以下|以内|未満|倍数|半
      | 이상|이하|미만|또는|и\ |или|больше|меньше|раз\ |[成折割할]$""",
    re.IGNORECASE | re.VERBOSE,
)
"""What makes another number of the one before it. Not what is counted as well: dozens, pairs, quarters, half gallons,
ten-minute breaks."""
_OTHER = r"(?:(?![A-Za-z0-9_])[^\W\d_])"
_WORD = rf"(?:{_OTHER}|[A-Za-z°µΩ¢])(?:{_OTHER}|[A-Za-z°µΩ¢])*\.?"
_EXPONENT = r"(?:\s?\^\s?\{?\s?-?[1-4]\s?\}?|[²³])"
_UNIT = re.compile(rf"{_WORD}{_EXPONENT}?(?:\s?[ /·-]\s?{_WORD}{_EXPONENT}?)*")
_SPELLINGS = """
$: dollar usd buck 美元        €: euro eur 欧元         £: pound gbp 英镑       ¢: cent          元: 块 yuan
円: yen                        원: won                  руб: рублей рубля
h: hour hr 小时 小時 時間 시간 час часа часов            min: minute 分钟 分鐘 минут минуты
s: second sec 秒 초 секунд     m: meter metre 米 公尺 м метров метра            cm: centimeter centimetre 厘米 公分 см
mm: millimeter 毫米 мм         km: kilometer kilometre 千米 公里 км             in: inch inche
ft: foot feet                  mi: mile                 yd: yard                g: gram 克 г
kg: kilogram 千克 公斤 кг       l: liter litre 升 л      °: degree deg 度 도 градусов градуса                   rad: radian
m2: 平方米 square_meter square_metre                     cm2: 平方厘米 square_centimeter
km2: 平方千米 square_kilometer  ft2: square_foot square_feet                     in2: square_inch square_inche
m3: 立方米 cubic_meter         cm3: 立方厘米 cubic_centimeter                   in3: cubic_inch cubic_inche
mi/h: mph miles_per_hour mile_per_hour                   km/h: kmh kph kilometers_per_hour    m/s: meters_per_second
"""
_ALIASES = {
    spelling.replace("_", " "): unit
    for unit, spellings in re.findall(r"(\S+):((?: [^\s:]+(?!\S*:))+)", _SPELLINGS)
    for spelling in spellings.split()
}
_SHORT_SPELLINGS = """m g s h l L V W J N K A C km cm mm nm kg mg lb lbs oz ft in mi yd hr hrs min sec ms ml mL mph kmh
    kph Hz kHz Pa kPa USD EUR GBP deg rad mol dm ha kJ kW"""
_SHORT = frozenset(_SHORT_SPELLINGS.split())
_KNOWN = frozenset(_ALIASES.values()) | _SHORT
_MAX_UNIT_CHARS = 80
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_TEXT = rf"\\text\{{[^{{}}]*\}}{_EXPONENT}?"
_SHORT_UNIT = "|".join(sorted((unit for unit in _SHORT if len(unit) > 1), key=len, reverse=True))
_TAIL = re.compile(
    rf"""(?P<tail>(?:
        \s*/?\s*{_TEXT}(?:\s*[/·]\s*{_TEXT})*
      | (?:(?<=[\d}})°\]!])|\s)\s*(?:{_SHORT_UNIT}){_EXPONENT}?(?:\s?/\s?[a-z]+{_EXPONENT}?)?
      | \s[A-Za-z]{{3,}}(?:\s?[ /-]\s?[A-Za-z]+)*{_EXPONENT}?
      | \s*{_OTHER}(?:{_OTHER}|[ /·-](?={_OTHER}))*\.?
      | \s?°\s?[CF]? | \s?%
    )\s*)$""",
    re.VERBOSE,
)
"""The unit at the end of an expression that is no plain number."""


def number_and_unit(text: str) -> tuple[int, str]:
    """What the words at the front multiply the number by, and the unit behind them:
    10**5 and "km" for "hundred thousand km".
    """
    factor = 1
    while text and (word := _FACTOR.match(text) or _OTHER_FACTOR.match(text)):
        if word.re is _FACTOR:
            factor *= FACTORS[word[1].lower()]
        else:
            if not word[1] and text[:1] != " " and not text.startswith(word[2]):
                break
            factor *= _OTHER_FACTORS[word[1] or word[2]]
        text = text[word.end() :]
    return factor, text


@functools.lru_cache(maxsize=4096)
def unit_of(text: str, *, spaced: bool) -> str | None:
    """The unit in a normal form, "" for none; None if the text is no unit but, say, a variable.

    `spaced`: a space, or `\\text`, sets it apart from the number.
    """
    if not text:
        return ""
    if text == "°":
        return "°"
    if not _UNIT.fullmatch(text) or _NUMBER_WORD.match(text) or text.endswith("半"):
        return None
    first = re.split(r"[ /^.·-]", text, maxsplit=1)[0].rstrip("0123456789²³")
    foreign = not first.isascii()
    if first.lower() in _NOT_UNITS or not (foreign or first in _SHORT or (spaced and len(first) >= 3)):
        return None
    return _normal(text)


def agree(one: str, other: str) -> bool:
    """Whether two units may belong to the same value: one is missing, they are the same,
    or one may translate the other.
    """
    if not one or not other or one == other:
        return True
    return one.isascii() != other.isascii() and not (one in _KNOWN and other in _KNOWN)


def split(text: str) -> tuple[str, str, int] | None:
    """(value, unit, factor) of an expression with a unit at its end; None without one.

    The unit is "%" for percent and "°" for degrees; number words go into the factor.
    """
    found = _TAIL.search(text, max(0, len(text) - _MAX_UNIT_CHARS))
    value = text[: found.start()].rstrip() if found else ""
    if not found or not value or value[-1] in "+-*/^_=(,\\{":
        return None
    tail = found["tail"].strip()
    if tail == "°" and _ANGLE.search(value):
        return None  # \\sin 30°
    tail = re.sub(r"\\text\{\s*([^{}]*?)\s*\}", r" \1", tail).strip()
    if not tail:
        return value, "", 1
    if re.fullmatch(r"\\?%|percent(?:age)?|pct", tail, re.IGNORECASE):
        return value, "%", 1
    factor, rest = number_and_unit(tail.lstrip("/ "))
    unit = unit_of(rest.strip(), spaced=True)
    if unit is None and re.fullmatch(r"[A-Za-z]{1,2}" + _EXPONENT + "?", rest) and "\\text" in found["tail"]:
        unit = rest  # 2\sqrt{3}\text{ y}: set as text, it is no variable
    return None if unit is None else (value, unit, factor)


def _normal(text: str) -> str:
    text = re.sub(r"\s*([/^])\s*", r"\1", text)
    text = (
        text.lower().rstrip(".").replace("^", "").replace("{", "").replace("}", "").replace("²", "2").replace("³", "3")
    )
    text = _ALIASES.get(text, text)
    if len(text) > 2 and text.endswith("s") and text.isascii():
        text = _ALIASES.get(text[:-1], text[:-1])
    if "/" in text:
        text = "/".join(_ALIASES.get(part, _ALIASES.get(part.rstrip("s"), part)) for part in text.split("/"))
    return text
