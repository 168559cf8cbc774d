"""Analyse response texts: reflective words, self-corrections, and the language of the thinking."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from r1ray.errors import DataError
from r1ray.rewards.answers.answer import answers, chain_of_thought
from r1ray.rewards.base import Sample
from r1ray.rewards.text.language import Language, count_words
from r1ray.run.metrics import Row
from r1ray.sampling.store import SampleRow
from r1ray.types import part_of_kind
from r1ray.util.responses import ReflectiveWords

Point = tuple[float, float]

RULE = (
    "Found by a rule: a number that is not the answer precedes a reflective word, another number follows it, "
    "and the final answer is right. Not selected by hand: the first matches among the kept training responses, "
    "then among the evaluation samples."
)
"""It looks for numbers, so it finds corrections in arithmetic and misses those in proofs."""

_DIGITS = r"-?\d[\d,]*(?:\.\d+)?(?!\w)"
_NUMBER = re.compile(rf"(?<![\w.]){_DIGITS}")
_STATED = re.compile(rf"=\s*({_DIGITS})")
_NEAR = 160
"""The two numbers must be within this many characters of the word."""
_LEAST_IN_BIN, _MOST_BINS = 20, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A place in a response where a number after a reflective word replaces one before it."""

    before: str  # the number that is taken back
    after: str  # the number that replaces it
    start: int  # offset of the word in the response
    end: int


def find_correction(text: str, right: bool, words: ReflectiveWords) -> Correction | None:
    """Return the first correction in a response by `RULE`, or None. `right`: whether the final answer is.

    Example: `<think>7+5=11, wait, 7+5=12</think><answer>12</answer>` corrects 11 to 12 at `wait`.
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
            return Correction(before=before[-1], after=after, start=offset + start, end=offset + end)
    return None


def _numbers(text: str) -> list[str]:
    return [_plain(found) for found in _NUMBER.findall(text)]


def _plain(number: str) -> str:
    return number.replace(",", "").strip()


def _result(text: str) -> str | None:
    """Return the result of a correction: the number after the first `=`,
    else the last one of the first line with any.
    """
    if stated := _STATED.search(text):
        return _plain(stated[1])
    for line in text.splitlines():
        if found := _numbers(line):
            return found[-1]
    return None


def corrections(transcripts: Iterable[Row], words: ReflectiveWords, most: int) -> list[tuple[Row, Correction]]:
    """Return the first `most` transcripts with a correction, at most one per prompt."""
    found: dict[str, tuple[Row, Correction]] = {}
    for row in transcripts:
        if len(found) >= most:
            break
        made = find_correction(row["text"], (part_of_kind(row["parts"], "accuracy") or 0.0) >= 1.0, words)
        if made is not None:
            found.setdefault(str(row.get("prompt_id", len(found))), (row, made))
    return list(found.values())


def reflection_shares(transcripts: Sequence[Row], words: ReflectiveWords) -> tuple[Point, ...]:
    """Return (step, share of kept responses with a reflective word) in bins of at least twenty responses."""
    bins = max(1, min(_MOST_BINS, len(transcripts) // _LEAST_IN_BIN))
    edges = [i * len(transcripts) // bins for i in range(bins + 1)]
    points = []
    for a, b in itertools.pairwise(edges):
        part = transcripts[a:b]
        if part:
            hits = sum(words.count(row["text"]) > 0 for row in part)
            points.append((sum(row["step"] for row in part) / len(part), hits / len(part)))
    return tuple(points)


PURE = 0.9
"""A response counts as mixed if a smaller share of the words of its thinking is in the target language."""

KEPT = 4
"""Maximum number of corrections kept per stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStats:
    """Statistics of the texts of a stage's samples; None if no sample is applicable."""

    samples: int
    target: float | None  # share of words of the thinking in the target language, mean over the samples with words
    by_source: dict[str, float]  # the same by source
    mixed: float | None  # share of mixed responses among the samples with words
    reflective: float | None  # share of samples with a reflective word
    corrected: float | None  # share of samples with a correction, by `RULE`
    corrections: tuple[tuple[SampleRow, Correction], ...]  # the first ones, at most one per prompt


def text_stats(samples: Iterable[SampleRow], words: ReflectiveWords) -> TextStats:
    """Compute the statistics of one stage. Language is measured as by the reward `language`."""
    by_source: dict[str, list[float]] = {}
    seen = reflective = corrected = 0
    corrections: dict[str, tuple[SampleRow, Correction]] = {}
    for row in samples:
        seen += 1
        reflective += words.count(row.response) > 0
        made = find_correction(row.response, (part_of_kind(row.parts, "accuracy") or 0.0) >= 1.0, words)
        if made is not None:
            corrected += 1
            if len(corrections) < KEPT:
                corrections.setdefault(row.prompt_id, (row, made))
        if (found := _target_share(row)) is not None:
            by_source.setdefault(row.source, []).append(found)
    shares = [share for each in by_source.values() for share in each]
    return TextStats(
        samples=seen,
        target=math.fsum(shares) / len(shares) if shares else None,
        by_source={name: math.fsum(each) / len(each) for name, each in by_source.items()},
        mixed=sum(s < PURE for s in shares) / len(shares) if shares else None,
        reflective=reflective / seen if seen else None,
        corrected=corrected / seen if seen else None,
        corrections=tuple(corrections.values()),
    )


def _target_share(row: SampleRow) -> float | None:
    sample = Sample(response=row.response, answer=row.answer, task=row.source, messages=row.messages, meta=row.meta)
    try:
        target = Language().target_of(sample)
    except DataError:  # the language of the question is unknown, so there is no target
        return None
    counts = count_words(chain_of_thought(row.response), target)
    total = math.fsum(counts.values())
    return counts.get(target, 0.0) / total if total else None
