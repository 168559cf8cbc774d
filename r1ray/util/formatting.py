"""Formatting of numbers and texts for people, the same in the terminal and in reports."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence

MAX_JOINED_LINES = 4
_TRACEBACK = ("File ", "^", "Traceback")
_BLOCKS = "▁▂▃▄▅▆▇█"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PICTURES = (
    {c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t"} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), "␦")
)


def duration(seconds: float) -> str:
    """`8.4 s`, `1m 05s`, `2h 07m`: three significant parts at most."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"


def share(value: float | None) -> str:
    """A number from 0 to 1 as a percentage: `72%`, `0.4%`; never rounded to 0% or 100%; a dash for None."""
    if value is None or not math.isfinite(value):
        return "–"
    percent = 100 * value
    if 0 < abs(percent) < 0.05:
        return "<0.1%" if percent > 0 else ">-0.1%"
    whole = f"{percent:.0f}"
    return f"{whole}%" if float(whole) == percent or whole not in ("0", "-0", "100") else f"{percent:.1f}%"


def number(value: float | None) -> str:
    """About three significant figures: `5,620`, `30.4`, `0.0031`, `3e-06`; a dash for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value == int(value) and size < 1e12:
        return f"{int(value):,}"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    if size >= 1e-3:
        return f"{value:.3g}"
    return f"{value:.2g}"


def printable(text: str) -> str:
    """`text` for a terminal: control characters, which could move the cursor, become visible symbols."""
    return text.translate(_PICTURES)


def one_line(text: str) -> str:
    """`text` in one line without colours: all of a short message, the first and the last line of a traceback or a long
    one.

    Example: "ProcessDied: a\n  File x\nValueError: b" becomes "ProcessDied: a ... ValueError: b".
    """
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    if len(lines) <= MAX_JOINED_LINES and not any(line.startswith(_TRACEBACK) for line in lines):
        return " ".join(lines)
    return f"{lines[0]} ... {lines[-1]}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The finite `values` as at most `width` block characters, each the mean of an equal part."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite or width < 1:
        return ""
    n = min(width, len(finite))
    edges = [i * len(finite) // n for i in range(n + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return _BLOCKS[3] * n
    return "".join(_BLOCKS[round((m - low) / (high - low) * (len(_BLOCKS) - 1))] for m in means)


def fill(template: str, texts: Mapping[str, str]) -> str:
    """The template with each `{name}` of `texts` replaced, in one pass: a `{name}` inside a text stays as it is."""
    slots = re.compile("|".join(re.escape(f"{{{name}}}") for name in texts))
    return slots.sub(lambda slot: texts[slot[0][1:-1]], template)
