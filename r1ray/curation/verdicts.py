"""Verdicts: which samples are kept, one verdict per sample, in the order of the samples.

    filters          a sample by itself (`filters.FILTERS`)
    duplicate        as similar as configured to one that came before: of its prompt, or of other prompts
    per_prompt       enough of its prompt are kept
    quota            enough of its domain are kept

The samples of a prompt are considered in the order of `curation.choice`. A quota takes the first choice of every
prompt, then the second ones, and so on, so that it keeps as many different prompts as possible; a hash orders equal
choices.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from r1ray.config.schema import CurationConfig
from r1ray.curation.candidate import Candidate, place_hash
from r1ray.curation.filters import FILTERS, first_reason
from r1ray.curation.general import GeneralRow
from r1ray.curation.similar import Seen, Shingles, Signature, jaccard, shingles, signature
from r1ray.sampling.store import SampleRow

KEPT = "kept"
REASONS = (*FILTERS, "duplicate", "per_prompt", "quota", "refine_refused", "refine_incorrect", "refine_unreadable")
"""Reasons for dropping a sample, in order of application; the first that matches counts."""
_CODES = {name: code for code, name in enumerate((KEPT, *REASONS))}
_NAMES = (KEPT, *REASONS)


class Verdicts:
    """Verdicts by number of the sample, one byte each."""

    def __init__(self) -> None:
        self._codes = array("b")
        self._claims: dict[str, list[tuple[int, int, int]]] = defaultdict(list)  # domain -> (choice, hash, number)

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[str | None]:
        """The reasons in order of the samples; None for a kept sample."""
        return (None if code == 0 else _NAMES[code] for code in self._codes)

    def keep(self, domain: str, choice: int, chance: int) -> None:
        """Keep the next sample, as number `choice` (from 0) of its prompt."""
        self._claims[domain].append((choice, chance, len(self._codes)))
        self._codes.append(0)

    def drop(self, reason: str) -> None:
        """Drop the next sample."""
        self._codes.append(_CODES[reason])

    def drop_at(self, number: int, reason: str) -> None:
        """Drop the sample `number`, which was kept."""
        self._codes[number] = _CODES[reason]

    def apply_quotas(self, quotas: dict[str, int]) -> None:
        """Drop samples above the quota of their domain."""
        for domain, most in quotas.items():
            for _, _, number in sorted(self._claims.get(domain, ()))[most:]:
                self.drop_at(number, "quota")


def judge(
    verdicts: Verdicts, samples: Iterable[SampleRow], config: CurationConfig, seed: int, seen: Seen | None
) -> None:
    """Add the verdicts on samples that come prompt by prompt, quotas apart.

    `seen`: what is kept is compared with it and added to it; None: conversations are not compared.
    Raises ConfigError for a threshold on what the samples were not judged by.
    """
    for _, group in groupby(samples, key=lambda s: (s.source, s.index)):
        candidates = [Candidate.of(sample) for sample in group]
        chosen = _choose(candidates, config, seed, seen)
        for candidate, verdict in zip(candidates, chosen, strict=True):
            if isinstance(verdict, int):
                verdicts.keep(candidate.domain, verdict, _chance(candidate, seed))
            else:
                verdicts.drop(verdict)


def judge_general(
    verdicts: Verdicts, rows: Iterable[GeneralRow], config: CurationConfig, seed: int, seen: Seen | None
) -> None:
    """Add the verdicts on merged conversations, before quotas."""
    for number, row in enumerate(rows):
        if seen is not None:
            whole = signature(shingles(row.text, config.shingle_words))
            if seen.has(whole):
                verdicts.drop("duplicate")
                continue
            seen.add(whole)
        verdicts.keep(row.domain, 0, place_hash(seed, row.source, number))


def _choose(candidates: Sequence[Candidate], config: CurationConfig, seed: int, seen: Seen | None) -> list[str | int]:
    """For each sample of a prompt the reason for dropping it, or the number of kept samples before it."""
    verdicts: list[str | int] = [first_reason(c, config) or 0 for c in candidates]
    order = [i for i, verdict in enumerate(verdicts) if verdict == 0]
    order.sort(key=lambda i: (_preference(candidates[i], config.choice), _chance(candidates[i], seed)))
    kept: list[Shingles] = []
    signatures: list[Signature] = []  # added in the end: responses to one prompt are compared without their question
    count = 0
    for i in order:
        text = candidates[i].text
        own = shingles(text, config.shingle_words) if config.prompt_similarity is not None else None
        if own is not None and any(jaccard(own, other) >= (config.prompt_similarity or 1.0) for other in kept):
            verdicts[i] = "duplicate"
            continue
        if seen is not None:
            whole = signature(shingles(f"{candidates[i].question}\n{text}", config.shingle_words))
            if seen.has(whole):
                verdicts[i] = "duplicate"
                continue
        if config.per_prompt is not None and count >= config.per_prompt:
            verdicts[i] = "per_prompt"
            continue
        verdicts[i] = count
        count += 1
        if own is not None:
            kept.append(own)
        if seen is not None:
            signatures.append(whole)
    for whole in signatures:
        assert seen is not None
        seen.add(whole)
    return verdicts


def _preference(candidate: Candidate, choice: str) -> int:
    return {"random": 0, "shortest": 1, "longest": -1}[choice] * candidate.sample.tokens


def _chance(candidate: Candidate, seed: int) -> int:
    sample = candidate.sample
    return place_hash(seed, sample.source, sample.index, sample.sample)
