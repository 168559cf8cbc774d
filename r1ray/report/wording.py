"""What the texts of a stage's samples show: language mixing and reconsidering."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from r1ray.errors import DataError
from r1ray.report.reflection import Turn, turn
from r1ray.rewards.answers.answer import chain_of_thought
from r1ray.rewards.base import Sample
from r1ray.rewards.text.language import Language, count_words
from r1ray.sampling.store import SampleRow
from r1ray.types import part_of_kind
from r1ray.util.responses import ReflectiveWords

PURE = 0.9
"""A chain of thought with a smaller share of words in its target language counts as mixed."""

KEPT = 4
"""Turns that are kept of a stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Shares over the samples that were looked at; None where none of them says anything of it."""

    samples: int
    target: float | None  # words of the thinking in the target language, mean over the samples with words
    by_source: dict[str, float]  # the same by source, of those that have any
    mixed: float | None  # of those samples
    reflective: float | None  # samples with a reflective word
    turned: float | None  # samples in which such a word turns the answer right, by `reflection.RULE`
    turns: tuple[tuple[SampleRow, Turn], ...]  # the first of them, one of a prompt


def wording(samples: Iterable[SampleRow], words: ReflectiveWords) -> Wording:
    """Look through the samples of one stage. Language is counted as the reward `language` does."""
    by_source: dict[str, list[float]] = {}
    seen = reflective = turned = 0
    turns: dict[str, tuple[SampleRow, Turn]] = {}
    for row in samples:
        seen += 1
        reflective += words.count(row.response) > 0
        made = turn(row.response, (part_of_kind(row.parts, "accuracy") or 0.0) >= 1.0, words)
        if made is not None:
            turned += 1
            if len(turns) < KEPT:
                turns.setdefault(row.prompt_id, (row, made))
        if (found := _target_share(row)) is not None:
            by_source.setdefault(row.source, []).append(found)
    shares = [share for each in by_source.values() for share in each]
    return Wording(
        samples=seen,
        target=math.fsum(shares) / len(shares) if shares else None,
        by_source={name: math.fsum(each) / len(each) for name, each in by_source.items()},
        mixed=sum(s < PURE for s in shares) / len(shares) if shares else None,
        reflective=reflective / seen if seen else None,
        turned=turned / seen if seen else None,
        turns=tuple(turns.values()),
    )


def _target_share(row: SampleRow) -> float | None:
    sample = Sample(response=row.response, answer=row.answer, task=row.source, messages=row.messages, meta=row.meta)
    try:
        target = Language().target_of(sample)
    except DataError:  # a question in no language that is known: nothing to be consistent with
        return None
    counts = count_words(chain_of_thought(row.response), target)
    total = math.fsum(counts.values())
    return counts.get(target, 0.0) / total if total else None
