"""The final answer of a response in one canonical form, so that answers can be counted and voted on."""

from __future__ import annotations

from r1ray.rewards.answer import answers
from r1ray.rewards.numbers import plain, unwrapped
from r1ray.types import FinishReason

MAX_CHARS = 400
"""A longer answer has no canonical form: votes go to what people would call an answer."""


def canonical_answer(response: str, finish_reason: FinishReason, *, opened: bool = False) -> str | None:
    """What the response gives as its answer; None where it gives none. Several answers make one, in their order.

    Numbers that are equal have one form (`1,234.0` and `1234`, `1/2` and `0.5`); of other text white space and case are evened out.
    """
    given = answers(response, opened=opened, complete=finish_reason == "stop")
    text = "; ".join(_canonical(answer) for answer in given)
    return text if 0 < len(text) <= MAX_CHARS else None


def _canonical(text: str) -> str:
    number = plain(text)
    if number is not None:
        return f"{number.value}%" if number.percent else str(number.value)
    return " ".join(unwrapped(text).split()).casefold()
