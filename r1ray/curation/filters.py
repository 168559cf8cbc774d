"""Filters of single samples. Each is a function of one sample that returns whether to drop it.

They apply in the order of `FILTERS`; a dropped sample is counted under the first filter that drops it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from r1ray.config.schema import CurationConfig
from r1ray.curation.candidate import Candidate, meets, target_language
from r1ray.curation.form import think_summary
from r1ray.data.grams import WORD
from r1ray.rewards.base import Sample
from r1ray.rewards.text.format import Format
from r1ray.rewards.text.language import count_words
from r1ray.rewards.text.repetition import Repetition

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")


def error(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample that a reward could not judge."""
    return c.sample.error is not None


def incorrect(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample below a threshold of `curation.correct`."""
    return not meets(c.sample, config.correct)


def truncated(c: Candidate, config: CurationConfig) -> bool:
    """Drop a truncated sample."""
    return config.drop_truncated and c.sample.finish_reason != "stop"


def format_(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample whose tags do not follow the style."""
    if config.style is None:
        return False
    return not Format(style="r1_zero" if config.style == "r1_zero" else "think")(Sample(response=c.text))


def language_unknown(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample whose target language cannot be determined."""
    return config.min_language > 0 and target_language(c, config.language) is None


def language(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample that thinks in mixed languages or in another one. Thinking without words passes."""
    if config.min_language == 0:
        return False
    counts = count_words(c.thinking, target := target_language(c, config.language))
    total = sum(counts.values())
    return total > 0 and counts.get(str(target), 0.0) < config.min_language * total


def repetition(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample that repeats itself."""
    if config.max_repetition is None:
        return False
    return -Repetition(n=config.repetition_words)(Sample(response=c.text)) > config.max_repetition


def too_short(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample with fewer tokens than `min_tokens`."""
    return c.sample.tokens < config.min_tokens


def too_long(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample with more tokens than `max_tokens`."""
    return config.max_tokens is not None and c.sample.tokens > config.max_tokens


def long_paragraph(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample with too many words between two empty lines of its thinking."""
    most = config.max_paragraph_words
    return most is not None and any(len(WORD.findall(p)) > most for p in _PARAGRAPHS.split(c.thinking))


def code_block(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample with a fenced block in its thinking."""
    return config.drop_code_blocks and _FENCE.search(c.thinking) is not None


def low_quality(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample below a threshold of `curation.quality`, such as a judge's."""
    return not meets(c.sample, config.quality)


def unconvertible(c: Candidate, config: CurationConfig) -> bool:
    """Drop a sample without the thinking and answer that `format: think_summary` needs."""
    return config.format == "think_summary" and think_summary(c.text, config.summary) is None


Filter = Callable[[Candidate, CurationConfig], bool]

FILTERS: dict[str, Filter] = {
    "error": error,
    "incorrect": incorrect,
    "truncated": truncated,
    "format": format_,
    "language_unknown": language_unknown,
    "language": language,
    "repetition": repetition,
    "too_short": too_short,
    "too_long": too_long,
    "long_paragraph": long_paragraph,
    "code_block": code_block,
    "low_quality": low_quality,
    "unconvertible": unconvertible,
}
"""Reason -> filter, in order of application."""

READABILITY = ("format", "language_unknown", "language", "repetition", "long_paragraph", "code_block")
"""Filters that depend on the text alone. They are applied again to a refined text."""


def first_reason(c: Candidate, config: CurationConfig, names: Iterable[str] = FILTERS) -> str | None:
    """The first of the filters `names` that drops the sample; None if all pass it."""
    return next((name for name in names if FILTERS[name](c, config)), None)
