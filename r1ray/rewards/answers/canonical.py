"""Canonical forms of answers, so that samples can vote for them.

response --canonical_answer--> text of a shard --ballot--> by what the verifier compares --merged--> classes of
mathematics
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice

from r1ray.config.schema import RewardConfig, SourceConfig
from r1ray.rewards.answers.answer import answers
from r1ray.rewards.answers.choice import letter_of, naming_an_option
from r1ray.rewards.answers.numbers import plain, unwrapped
from r1ray.rewards.answers.quantities import assigned
from r1ray.rewards.registry import kind_of
from r1ray.types import FinishReason

MAX_CHARS = 400
"""A longer answer has no canonical form, and no vote."""
VOTED = ("math", "numeric", "exact", "choice", "task")
"""Verifiers whose answers can agree. Two programs, or two texts that follow instructions, are never the same answer."""
MOST_COMPARISONS = 64
"""Most comparisons of expressions in one problem; what is not compared by then counts as different."""

_BETWEEN = "; "
_WORD = re.compile(r"[^\W\d_]{3}")
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")


def canonical_answer(
    response: str, finish_reason: FinishReason, *, opened: bool = False, choices: Sequence[str] = ()
) -> str | None:
    """The answer of a response; None if it has none. Several different values are joined in their order.

    Equal numbers have one form (`1,234.0` and `1234`, `1/2` and `0.5`, `y = 9` and `9`). In other text, white space is
    evened out, and the case of words outside LaTeX. `choices`: the options of the problem; with them, the last box that
    names one counts.
    """
    given = answers(response, opened=opened, complete=finish_reason == "stop", accept=naming_an_option(choices))
    text = _BETWEEN.join(dict.fromkeys(map(_canonical, given)))
    return text if 0 < len(text) <= MAX_CHARS else None


def _canonical(text: str) -> str:
    number = plain(assigned(text))
    if number is not None:
        return f"{number.value}%" if number.percent else str(number.value)
    even = " ".join(unwrapped(text).split())
    return even.casefold() if "\\" not in even and _WORD.search(even) else even


def verifier_of(rewards: Sequence[RewardConfig], source: SourceConfig) -> str | None:
    """The verifier of a source's accuracy reward; None if it has no such reward."""
    for reward in rewards:
        if kind_of(reward.name) == "accuracy" and (source.rewards is None or reward.name in source.rewards):
            return str(reward.params.get("verifier", "math"))
    return None


def ballot(answer_text: str | None, verifier: str | None, choices: Sequence[str] = ()) -> str | None:
    """What a sample votes for: the letter for multiple choice, else the canonical text. None if it does not vote."""
    if answer_text is None or verifier not in VOTED:
        return None
    if verifier == "math":
        return answer_text
    if verifier != "choice":
        return answer_text if "\\" in answer_text else answer_text.casefold()
    if (letter := letter_of(answer_text, choices)) is not None:
        return letter
    letters = {letter_of(part, choices) for part in answer_text.split(_BETWEEN)}
    return letters.pop() if len(letters) == 1 else None


def merged(
    ballots: Sequence[str | None], values: Sequence[float], same: Callable[[str, str], bool] | None = None
) -> list[str | None]:
    """The ballots of one problem of mathematics, with one name for all that are the same answer. Lists of length k.

    Those that were judged right (value 1) equal the truth and so each other. Wrong ones are compared by `same`, if it
    is given and if together they could have the majority; what `same` cannot decide in its time counts as different.
    """
    right = [b for b, value in zip(ballots, values, strict=True) if b is not None and value == 1.0]
    names: dict[str, str] = dict.fromkeys(right, right[0]) if right else {}
    wrong = [b for b in ballots if b is not None and b not in names]
    if same is not None and 0 < len(right) <= len(wrong):
        _join(list(dict.fromkeys(wrong)), same, names)
    return [b if b is None else names.get(b, b) for b in ballots]


def _join(texts: Sequence[str], same: Callable[[str, str], bool], names: dict[str, str]) -> None:
    # Plain numbers that are equal are written alike already: they are heads to compare with, for expressions without
    # letters.
    numbers = [text for text in texts if plain(text) is not None]
    heads: list[str] = []
    left = MOST_COMPARISONS
    for text in texts:
        if text in numbers:
            continue
        others = [*heads, *([] if _LETTERS.search(text) else numbers)]
        tried = list(islice(others, left))
        left -= len(tried)
        head = next((h for h in tried if same(h, text)), None)
        if head is None:
            heads.append(text)
        else:
            names[text] = head
