"""Curation: turn samples into dataset/, dropped/ and the report.

The samples are read twice, once for the verdicts and once to write, so that their text is not held
in memory. Refinement reads them once more in between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from r1ray.config.schema import CurationConfig
from r1ray.curation.candidate import Candidate, meets
from r1ray.curation.form import think_summary
from r1ray.curation.general import GeneralRow, general_rows
from r1ray.curation.mix import Domain, make_report, report_text
from r1ray.curation.output import Output
from r1ray.curation.refine import Refined, Request
from r1ray.curation.review import Review
from r1ray.curation.similar import Seen
from r1ray.curation.verdicts import REASONS, Verdicts, judge, judge_general
from r1ray.sampling.store import SampleRow
from r1ray.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """Functions that refine the kept samples and review the result. Producer: the command. Consumer: `curate`."""

    ask: Callable[[Iterator[Request]], Iterator[Refined]]
    review: Review


def curate(
    folder: Path,
    samples: Callable[[], Iterable[SampleRow]],
    config: CurationConfig,
    *,
    seed: int,
    count_tokens: Callable[[str], int],
    refinement: Refinement | None = None,
) -> dict[str, Any]:
    """Write the dataset of `samples` into `folder`. `samples` yields them prompt by prompt and is called several times.

    `count_tokens` counts the texts that were changed after sampling. Equal samples and configuration (and equal
    refined texts) give equal files. Returns the report; see `mix.make_report`. Raises ConfigError for a threshold on
    what the samples were not judged by, and for general data that cannot be read.
    """
    verdicts = Verdicts()
    seen = Seen(config.dataset_similarity) if config.dataset_similarity is not None else None
    judge(verdicts, samples(), config, seed, seen)
    sampled = len(verdicts)
    judge_general(verdicts, general_rows(config), config, seed, seen)
    verdicts.apply_quotas(config.quotas)
    refined: dict[int, str] = {}
    if refinement is not None:
        refined = _refine(verdicts, samples, config, refinement)
    domains: dict[str, Domain] = defaultdict(Domain)
    reasons = iter(verdicts)
    with Output(folder, config.rows_per_file) as out:
        _write_samples(out, samples(), islice(reasons, sampled), config, refined, count_tokens, domains)
        _write_general(out, general_rows(config), reasons, count_tokens, domains)
        report = make_report(domains, REASONS)
        out.publish(report, report_text(report))
    return report


def _refine(
    verdicts: Verdicts, samples: Callable[[], Iterable[SampleRow]], config: CurationConfig, refinement: Refinement
) -> dict[int, str]:
    """Refined texts by number of their sample. Samples whose refined text is unusable are dropped from the verdicts."""
    waiting: dict[int, Candidate] = {}

    def requests() -> Iterator[Request]:
        # As a list: the verdicts change while the samples are gone through.
        for number, (sample, reason) in enumerate(zip(samples(), list(verdicts), strict=False)):
            if reason is None:
                waiting[number] = candidate = Candidate.of(sample)
                yield Request(number=number, question=candidate.question, response=_formed(candidate, config))

    texts: dict[int, str] = {}
    for refined in refinement.ask(requests()):
        candidate = waiting.pop(refined.number)
        text, reason = _reviewed(candidate, refined.text, config, refinement.review)
        if reason is None:
            texts[refined.number] = text
        else:
            verdicts.drop_at(refined.number, reason)
    return texts


def _reviewed(candidate: Candidate, text: str | None, config: CurationConfig, review: Review) -> tuple[str, str | None]:
    """A refined text in the output format, and the reason why it cannot replace the sample (None: it can)."""
    if text is None:
        return "", "refine_refused"
    formed = think_summary(text, config.summary) if config.format == "think_summary" else text
    if formed is None:
        return "", "refine_unreadable"
    return formed, review.reason(candidate, formed)


def _write_samples(
    out: Output,
    samples: Iterable[SampleRow],
    reasons: Iterator[str | None],
    config: CurationConfig,
    refined: dict[int, str],
    count_tokens: Callable[[str], int],
    domains: dict[str, Domain],
) -> None:
    before: tuple[str, int] | None = None
    for number, (sample, reason) in enumerate(zip(samples, reasons, strict=True)):
        candidate = Candidate.of(sample)
        domain = domains[candidate.domain]
        domain.prompts += before != (sample.source, sample.index)
        before = sample.source, sample.index
        domain.samples += 1
        domain.judged += 1
        domain.correct += sample.error is None and meets(sample, config.correct)
        row_id = f"{sample.source}/{sample.index}/{sample.sample}"
        shared = {"id": row_id, "prompt_id": sample.prompt_id, "domain": candidate.domain, "source": sample.source}
        if reason is not None:
            domain.dropped[reason] += 1
            out.dropped.add({**shared, "index": sample.index, "sample": sample.sample, "reason": reason})
            continue
        text = refined.get(number) or _formed(candidate, config)
        tokens = sample.tokens if text == candidate.text else count_tokens(text)
        domain.keep(tokens, _rounds(sample.messages))
        out.dataset.add(
            {**shared, "messages": _closed(sample.messages, text), "tokens": tokens, "reward": sample.reward}
        )


def _write_general(
    out: Output,
    rows: Iterable[GeneralRow],
    reasons: Iterator[str | None],
    count_tokens: Callable[[str], int],
    domains: dict[str, Domain],
) -> None:
    for row, reason in zip(rows, reasons, strict=True):
        domain = domains[row.domain]
        domain.prompts += 1
        domain.samples += 1
        name = f"{row.source}/{row.row_id}"
        shared = {"id": name, "prompt_id": name, "domain": row.domain, "source": row.source}
        if reason is not None:
            domain.dropped[reason] += 1
            out.dropped.add({**shared, "index": None, "sample": None, "reason": reason})
            continue
        tokens = count_tokens(row.response)
        domain.keep(tokens, _rounds(row.prompt))
        out.dataset.add({**shared, "messages": _closed(row.prompt, row.response), "tokens": tokens, "reward": None})


def _formed(candidate: Candidate, config: CurationConfig) -> str:
    """The response in the output format; the filter `unconvertible` has dropped all that have none."""
    if config.format == "as_is":
        return candidate.text
    formed = think_summary(candidate.text, config.summary)
    assert formed is not None
    return formed


def _closed(prompt: Iterable[Message], text: str) -> list[Message]:
    return [*prompt, {"role": "assistant", "content": text}]


def _rounds(prompt: Iterable[Message]) -> int:
    return sum(message["role"] == "user" for message in prompt)
