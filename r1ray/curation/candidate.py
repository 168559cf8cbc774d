"""Samples as the filters read them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from r1ray.config.curation import TOTAL
from r1ray.config.schema import ThresholdConfig
from r1ray.errors import ConfigError
from r1ray.rewards.answers.answer import chain_of_thought, opening
from r1ray.rewards.text.language import language_of
from r1ray.sampling.store import SampleRow
from r1ray.util.languages import code_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A sample with the fields that filters read. Producer: `Candidate.of`. Consumers: filters, choice, form."""

    sample: SampleRow
    domain: str
    text: str  # the whole response, with the opening tag where the prompt gave it
    thinking: str  # the chain of thought without its tags

    @classmethod
    def of(cls, sample: SampleRow) -> Candidate:
        """The candidate of a sample."""
        text = opening(sample.meta) + sample.response
        return cls(sample=sample, domain=domain_of(sample), text=text, thinking=chain_of_thought(text))

    @property
    def question(self) -> str:
        """The text of the user's messages."""
        return "\n".join(m["content"] for m in self.sample.messages if m["role"] == "user")


def domain_of(sample: SampleRow) -> str:
    """The row's `domain`, else its source."""
    return str(sample.meta.get("domain") or sample.source)


def place_hash(seed: int, *place: object) -> int:
    """A pseudo-random number in [0, 2^64) that depends only on the seed and the place."""
    name = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def target_language(candidate: Candidate, language: str | None) -> str | None:
    """The code of the target language of the thinking: as configured, else the row's, else the question's."""
    named = language or candidate.sample.meta.get("target_language")
    return code_of(str(named)) if named is not None else _language_of(candidate.question)


@lru_cache(maxsize=64)  # the samples of one prompt come one after another
def _language_of(text: str) -> str | None:
    return language_of(text)


def meets(sample: SampleRow, thresholds: Iterable[ThresholdConfig]) -> bool:
    """Whether a judged sample reaches every threshold for its source."""
    return all(
        _part(sample, threshold.part) >= threshold.at_least
        for threshold in thresholds
        if threshold.sources is None or sample.source in threshold.sources
    )


def _part(sample: SampleRow, part: str) -> float:
    """A part of the score by its name, or by its kind if it is the only one of that kind."""
    if part == TOTAL and sample.reward is not None:
        return sample.reward
    if part in sample.parts:
        return sample.parts[part]
    of_kind = [value for name, value in sample.parts.items() if name.partition("/")[0] == part]
    if len(of_kind) != 1:
        raise ConfigError(
            f"the samples of {sample.source} have no part {part!r} (they have {', '.join(sample.parts) or 'none'}): "
            "name one of these in curation.correct and curation.quality, or sample anew with that reward"
        )
    return of_kind[0]
