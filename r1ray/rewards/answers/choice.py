"""Multiple choice: a letter, or the text of an option."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1ray.errors import DataError
from r1ray.rewards.answers.answer import answers
from r1ray.rewards.answers.numbers import unwrapped
from r1ray.rewards.base import Reward, Sample

_LETTERS = 26
_BARE_LETTER = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?[.:]?")
_LETTER = re.compile(
    r"(?:option|choice|answer)?\s*[(\[{]?([A-Za-z])\s*(?:[)\]}.:]+|$)\s*[-–—:]?\s*(.*)", re.IGNORECASE | re.DOTALL
)
_LETTER_AND_TEXT = re.compile(r"[(\[{]?([A-Za-z])[)\]}.:]*[\s,–—-]+(\S.*)", re.DOTALL)
_LETTER_IS_RIGHT = re.compile(
    r"(?:the )?(?:(?:option|choice|answer) )?[(\[]?([A-Z])[)\]]? is "
    r"(?:the )?(?:right|correct|true|best)(?: one| option| choice| answer)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceVerifier(Reward):
    """The right option, named by its letter, its text, or both, which then must agree. A list of options is no answer.

    The truth is a letter, the text of an option in `choices`, or the index of one as an integer, from 0. The options
    are in the row, or beside the truth as {"answer": "B", "choices": ["red", "green", ...]}.
    """

    def __call__(self, sample: Sample) -> float:
        """See Reward. 1.0 if the answer names the right option and no other, else 0.0."""
        record = sample.answer if isinstance(sample.answer, dict) else {"answer": sample.answer}
        choices = options(sample.answer, sample.meta)
        truth = right_letter(record.get("answer"), choices)
        given = answers(
            sample.response,
            opened=sample.opened,
            complete=sample.finish_reason == "stop",
            accept=lambda box: letter_of(box, choices) is not None,
        )
        return float(bool(given) and all(letter_of(a, choices) == truth for a in given))


def right_letter(truth: Any, choices: Sequence[str]) -> str:
    """The letter of the option that the ground truth names. Raises DataError if it names none."""
    if isinstance(truth, int) and not isinstance(truth, bool):
        if not 0 <= truth < (len(choices) or _LETTERS):
            raise DataError(
                f"the answer on record, {truth}, is no place among the {len(choices) or _LETTERS} options, counted "
                "from 0: "
                "write the option's text in quotes, or its letter"
            )
        return chr(ord("A") + truth)
    letter = letter_of(truth, choices) if isinstance(truth, str) else None
    if letter is None:
        raise DataError(f"the answer on record, {truth!r:.80}, is neither a letter nor an option")
    return letter


def options(answer: Any, meta: Mapping[str, Any]) -> list[str]:
    """The texts of the options of a row; empty if it has none."""
    record = answer if isinstance(answer, dict) else {}
    return [str(c) for c in record.get("choices") or meta.get("choices") or ()]


def naming_an_option(choices: Sequence[str]) -> Callable[[str], bool] | None:
    """Whether a box names an option, as a function for `answers`; None without options."""
    return (lambda box: letter_of(box, choices) is not None) if choices else None


def letter_of(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the option that the text names; None if it names no option, or several."""
    text = unwrapped(text).strip("*_` ")
    choices = [_text(c) for c in choices]
    said = _text(text)
    if bare := _BARE_LETTER.fullmatch(text):  # before the texts of the options, which may be letters themselves
        place = ord(bare[1].upper()) - ord("A")
        if not choices or place < len(choices):
            return bare[1].upper()
    if said and choices.count(said) == 1:
        return chr(ord("A") + choices.index(said))
    if named := _LETTER_AND_TEXT.fullmatch(text):  # `B, 12`: the text shows that B is a letter here, no word
        place = ord(named[1].upper()) - ord("A")
        if place < len(choices) and _text(named[2]) == choices[place]:
            return named[1].upper()
    found = _LETTER_IS_RIGHT.fullmatch(" ".join(text.split()))
    if found and (not choices or ord(found[1].upper()) - ord("A") < len(choices)):
        return found[1].upper()
    found = _LETTER.fullmatch(text)
    if not found:
        return None
    letter, rest = found[1].upper(), _text(found[2])
    place = ord(letter) - ord("A")
    if choices and place >= len(choices):
        return None
    if choices and rest:
        return letter if rest == choices[place] else None
    # Without the texts of the options, further letters in brackets mean a list of options.
    return None if re.search(r"(?:^|[\s,(])[a-z][).:]|^[a-z]$|[,/]\s*[a-z]\b", rest) else letter


def _text(option: str) -> str:
    return " ".join(unwrapped(option).strip("*_` .").casefold().split())
