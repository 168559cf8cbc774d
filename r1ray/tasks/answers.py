"""Parse short answers. Safe on hostile text: bounded length, linear time."""

from __future__ import annotations

import re

MAX_CHARS = 2_000
"""Longer than any right answer; a longer answer is wrong without being read."""

_INTEGER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)")
_LETTER = re.compile(r"\(?([A-Z])\)?")


def clean(answer: str) -> str:
    """The answer without white space, $ signs and a full stop around it. Empty if it is too long."""
    if len(answer) > MAX_CHARS:
        return ""
    return answer.replace("−", "-").strip().removesuffix(".").strip("$ \t\n")


def integer(answer: str) -> int | None:
    """The answer as an integer, with or without thousands separators; None for anything else."""
    text = clean(answer)
    return int(text.replace(",", "")) if _INTEGER.fullmatch(text) else None


def letter(answer: str, noun: str = "") -> str | None:
    """The answer as a capital letter: "B", "(b)", or "candle B" with the noun candle. None for anything else."""
    found = _LETTER.fullmatch(clean(answer).upper().removeprefix(noun.upper()).strip())
    return found.group(1) if found else None


def words(answer: str) -> list[str]:
    """The words of the answer in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", clean(answer).lower())
