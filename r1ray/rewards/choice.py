"""Multiple choice: a letter, or the text of an option."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1ray.errors import DataError
from r1ray.rewards.answer import answers
from r1ray.rewards.base import Reward, Sample
from r1ray.rewards.numbers import unwrapped

_LETTER = re.compile(
    r"(?:option|choice|answer)?\s*[(\[{]?([A-Za-z])\s*(?:[)\]}.:]+|$)\s*[-–—:]?\s*(.*)", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceVerifier(Reward):
    """The right option, by its letter, its text, or both, which then must agree. A list of options is no answer.

    The truth is a letter, or the text of one of the options in `choices`; these stand in the row, or beside the truth as
    {"answer": "B", "choices": ["red", "green", ...]}.
    """

    def __call__(self, sample: Sample) -> float:
        record = sample.answer if isinstance(sample.answer, dict) else {"answer": sample.answer}
        choices = options(sample.answer, sample.meta)
        truth = letter_of(str(record.get("answer", "")), choices)
        if truth is None:
            raise DataError(f"the answer on record, {sample.answer!r:.80}, is neither a letter nor an option")
        given = answers(sample.response, opened=sample.opened, complete=sample.finish_reason == "stop")
        return float(bool(given) and all(letter_of(a, choices) == truth for a in given))


def options(answer: Any, meta: Mapping[str, Any]) -> list[str]:
    """The texts of the options of a row; empty where it has none on record."""
    record = answer if isinstance(answer, dict) else {}
    return [str(c) for c in record.get("choices") or meta.get("choices") or ()]


def letter_of(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the option that the text names; None for no option, or for several."""
    text = unwrapped(text).strip("*_` ")
    choices = [_text(c) for c in choices]
    said = _text(text)
    if said and choices.count(said) == 1:
        return chr(ord("A") + choices.index(said))
    found = _LETTER.fullmatch(text)
    if not found:
        return None
    letter, rest = found[1].upper(), _text(found[2])
    place = ord(letter) - ord("A")
    if choices and place >= len(choices):
        return None
    if choices and rest:
        return letter if rest == choices[place] else None
    # Without the options at hand, further letters in brackets mean a list of options.
    return None if re.search(r"(?:^|[\s,(])[a-z][).:]|^[a-z]$|[,/]\s*[a-z]\b", rest) else letter


def _text(option: str) -> str:
    return " ".join(unwrapped(option).strip("*_` .").casefold().split())
