"""Multiple choice: a letter, or the text of an option."""

from __future__ import annotations

import re
from dataclasses import dataclass

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

    opened: bool = False

    def __call__(self, sample: Sample) -> float:
        record = sample.answer if isinstance(sample.answer, dict) else {"answer": sample.answer}
        choices = [_text(str(c)) for c in record.get("choices") or sample.meta.get("choices") or ()]
        truth = _choice(str(record.get("answer", "")), choices)
        if truth is None:
            raise DataError(f"the answer on record, {sample.answer!r:.80}, is neither a letter nor an option")
        given = answers(sample.response, opened=self.opened, complete=sample.finish_reason == "stop")
        return float(bool(given) and all(_choice(a, choices) == truth for a in given))


def _choice(text: str, choices: list[str]) -> str | None:
    """The letter of the option that the text names; None for no option, or for several."""
    text = unwrapped(text).strip("*_` ")
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
