"""Responses that reconsider: how many, and the ones in which it turns a wrong answer into a right one.

The rule, which the page states: before a reflective word stands a number that is not the answer, after it another one, and the
response is right in the end. It looks for numbers, so it finds the turns of arithmetic and misses those of proofs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from r1ray.rewards.answers.answer import answers, chain_of_thought
from r1ray.run.metrics import Row
from r1ray.types import part_of_kind
from r1ray.util.responses import ReflectiveWords

Point = tuple[float, float]

RULE = (
    "Found by a rule: before a reflective word stands a number that is not the answer, right after it another one, "
    "and the final answer is right. Not picked: the first of the training responses that were kept, then of the evaluations."
)

_DIGITS = r"-?\d[\d,]*(?:\.\d+)?(?!\w)"
_NUMBER = re.compile(rf"(?<![\w.]){_DIGITS}")
_STATED = re.compile(rf"=\s*({_DIGITS})")
_NEAR = 160
"""Characters on each side of the word in which the two numbers are looked for."""
_LEAST_IN_BIN, _MOST_BINS = 20, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A response in which a reflective word turned the answer."""

    before: str  # the number that the word takes back
    after: str  # the one in its place
    start: int  # of the word in the response
    end: int


def turn(text: str, right: bool, words: ReflectiveWords) -> Turn | None:
    """The first turn in a response by `RULE`; None where there is none.

    Worked example: in `<think>7+5=11, wait, 7+5=12</think><answer>12</answer>` it is from 11 to 12 at `wait`.
    """
    if not right or not words.count(text):
        return None
    thinking = chain_of_thought(text)
    offset = text.find(thinking) if thinking else -1
    given = answers(text)
    if offset < 0 or not given:
        return None
    for start, end in words.spans(thinking):
        before = _numbers(thinking[max(0, start - _NEAR) : start])
        after = _result(thinking[end : end + _NEAR])
        if before and after is not None and before[-1] not in (after, *map(_plain, given)):
            return Turn(before=before[-1], after=after, start=offset + start, end=offset + end)
    return None


def _numbers(text: str) -> list[str]:
    return [_plain(found) for found in _NUMBER.findall(text)]


def _plain(number: str) -> str:
    return number.replace(",", "").strip()


def _result(text: str) -> str | None:
    """The number that a correction comes to: behind the first `=`, else the last one on the first line that has any."""
    if stated := _STATED.search(text):
        return _plain(stated[1])
    for line in text.splitlines():
        if found := _numbers(line):
            return found[-1]
    return None


def turns(transcripts: Iterable[Row], words: ReflectiveWords, most: int) -> list[tuple[Row, Turn]]:
    """The first `most` transcripts with a turn, one of a prompt."""
    found: dict[str, tuple[Row, Turn]] = {}
    for row in transcripts:
        if len(found) >= most:
            break
        made = turn(row["text"], (part_of_kind(row["parts"], "accuracy") or 0.0) >= 1.0, words)
        if made is not None:
            found.setdefault(str(row.get("prompt_id", len(found))), (row, made))
    return list(found.values())


def shares(transcripts: Sequence[Row], words: ReflectiveWords) -> tuple[Point, ...]:
    """(step, share of the kept responses with a reflective word), in bins of at least twenty responses."""
    bins = max(1, min(_MOST_BINS, len(transcripts) // _LEAST_IN_BIN))
    edges = [i * len(transcripts) // bins for i in range(bins + 1)]
    points = []
    for a, b in itertools.pairwise(edges):
        part = transcripts[a:b]
        if part:
            hits = sum(words.count(row["text"]) > 0 for row in part)
            points.append((sum(row["step"] for row in part) / len(part), hits / len(part)))
    return tuple(points)
