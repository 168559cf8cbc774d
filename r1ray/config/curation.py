"""Checks of the section `curation` and of the prompts that it samples. See `checks` for what a check is."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config, SourceConfig, ThresholdConfig
from r1ray.util.languages import LANGUAGES, code_of

TOTAL = "reward"
"""The `part` that is the weighted sum of all rewards."""
SPLITS = ("train", "heldout")


def sampled_sources(config: Config) -> Iterator[Problem]:
    """Find sources that cannot be read once from beginning to end, and samples that exceed the model's length."""
    for i, source in enumerate(config.data.train):
        key = f"data.train.{i}"
        if source.kind == "synthetic" and source.limit is None:
            yield problem(
                config,
                f"{key}.limit",
                "is not set, but a synthetic task has no end",
                "set the number of problems, e.g. 1000",
            )
        if source.kind == "synthetic" and source.split not in SPLITS:
            yield problem(
                config, f"{key}.split", "is not a split of a synthetic task", f"use one of {', '.join(SPLITS)}"
            )
        if source.weight != 1.0:
            message = "has no effect in `r1ray sample`, which samples every prompt once"
            yield problem(config, f"{key}.weight", message, "use 1.0; to change shares, set limit or curation.quotas")
    longest = config.data.max_prompt_tokens + config.rollout.max_new_tokens
    if longest > config.model.max_length:
        message = f"is shorter than data.max_prompt_tokens + rollout.max_new_tokens = {longest}"
        yield problem(config, "model.max_length", message, f"use at least {longest}, or shorten one of the two")


def curation(config: Config) -> Iterator[Problem]:
    """Find thresholds on scores that no reward gives, and contradictory settings of formats and endpoints."""
    section = config.curation
    yield from _thresholds(config, "correct", section.correct)
    yield from _thresholds(config, "quality", section.quality)
    if section.language is not None and code_of(section.language) is None:
        fix = f"use one of {', '.join(LANGUAGES.values())}, or null for the language of each question"
        yield problem(config, "curation.language", "is not a supported language", fix)
    if section.max_tokens is not None and section.max_tokens < section.min_tokens:
        yield problem(
            config, "curation.max_tokens", "is below curation.min_tokens", f"use at least {section.min_tokens}"
        )
    if section.format == "think_summary" and "{answer}" not in section.summary:
        message = "has no {answer}, so that every summary would be the same"
        yield problem(config, "curation.summary", message, "write, e.g., The answer is {answer}.")
    yield from _refine(config)
    yield from _general(config)


def _thresholds(config: Config, key: str, thresholds: Sequence[ThresholdConfig]) -> Iterator[Problem]:
    sources = {s.name: s for s in config.data.train}
    for i, threshold in enumerate(thresholds):
        here = f"curation.{key}.{i}"
        wanted = sources if threshold.sources is None else threshold.sources
        if unknown := sorted(set(wanted) - set(sources)):
            message = f"names {', '.join(unknown)}, which is not in data.train"
            yield problem(config, f"{here}.sources", message, f"use some of {', '.join(sources)}, or null for all")
            continue
        if without := [name for name in wanted if threshold.part not in _parts(config, sources[name])]:
            fix = (
                f"name a reward of these sources, or {TOTAL} for the sum, or list only other sources in {here}.sources"
            )
            yield problem(config, f"{here}.part", f"is not measured on {', '.join(without)}", fix)


def _parts(config: Config, source: SourceConfig) -> set[str]:
    """Return the names that a part of a sample's score may have: names of rewards and their kinds."""
    used = {r.name for r in config.rewards if source.rewards is None or r.name in source.rewards}
    return {TOTAL, *used, *(name.partition("/")[0] for name in used if ":" not in name)}


def _refine(config: Config) -> Iterator[Problem]:
    refine = config.curation.refine
    if refine.url is None:
        return
    if urllib.parse.urlsplit(refine.url).scheme not in ("http", "https"):
        fix = "begin it with http:// or https://"
        yield problem(config, "curation.refine.url", "is not the address of an endpoint", fix)
    if not refine.model:
        yield problem(config, "curation.refine.model", "is empty", "give the name of the model at curation.refine.url")
    if refine.template is not None and "{response}" not in refine.template:
        message = "has no {response}, so that there is nothing to refine"
        yield problem(config, "curation.refine.template", message, "add {question} and {response}")
    if not config.curation.correct:
        message = "is empty, so that a refined response would not be checked again"
        yield problem(config, "curation.correct", message, "add a threshold, e.g. [{part: accuracy, at_least: 1.0}]")


def _general(config: Config) -> Iterator[Problem]:
    names = [s.name for s in config.data.train]
    for i, source in enumerate(config.curation.general):
        here = f"curation.general.{i}"
        if source.name in names:
            yield problem(config, f"{here}.name", "is the name of another source", "give each source its own name")
        if unknown := sorted(set(source.params) - {"subset", "revision"}):
            message = f"names unknown parameters: {', '.join(unknown)}"
            yield problem(config, f"{here}.params", message, "use subset and revision, of a Hugging Face data set")
        names.append(source.name)
