"""Checks of the sections `data` and `rewards`. See `checks` for what a check is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config, SourceConfig


def rewards(config: Config) -> Iterator[Problem]:
    """No rewards, none that counts, or the same twice. A weight of 0 means: measured and reported, not trained on."""
    if not any(reward.weight for reward in config.rewards):
        yield problem(config, "rewards", "nothing is rewarded", "e.g. [{name: accuracy}, {name: format}]")
    seen: set[str] = set()
    for i, reward in enumerate(config.rewards):
        if reward.name in seen:
            yield problem(config, f"rewards.{i}.name", "is there already", "one entry for each reward")
        seen.add(reward.name)


def sources(config: Config) -> Iterator[Problem]:
    """No training prompts, or a source that cannot be."""
    if not config.data.train:
        yield problem(config, "data.train", "no source of training prompts", "name one, as conf/tiny.yaml does")
    elif all(source.from_step for source in config.data.train):
        yield problem(config, "data.train.0.from_step", "no source begins with step 0", "0 for one of them")
    rewarded = [r.name for r in config.rewards]
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        yield from named_once(config, section, entries)
        for i, source in enumerate(entries):
            key = f"data.{section}.{i}"
            yield from _source(config, key, source, rewarded)
            if section == "evaluation" and source.kind == "synthetic" and source.limit is None:
                yield problem(config, f"{key}.limit", "a synthetic task has no end", "how many problems, e.g. 256")


def named_once(config: Config, section: str, entries: Sequence[SourceConfig]) -> Iterator[Problem]:
    """Names that two sources of `data.<section>` share."""
    seen: set[str] = set()
    for i, source in enumerate(entries):
        if source.name in seen:
            yield problem(config, f"data.{section}.{i}.name", "names two sources", "give each its own name")
        seen.add(source.name)


def decontamination(config: Config) -> Iterator[Problem]:
    """Sources to compare with that cannot be, and a comparison with nothing, which would drop nothing and say so of nobody."""
    data = config.data
    for i, source in enumerate(data.decontaminate_against):
        key = f"data.decontaminate_against.{i}"
        yield from _source(config, key, source, [])
        if source.kind == "synthetic":
            message = "is a synthetic task, which keeps its splits apart itself"
            yield problem(config, f"{key}.kind", message, "jsonl, parquet or hf; leave a task out")
    compared = any(source.kind != "synthetic" for source in (*data.evaluation, *data.decontaminate_against))
    if data.decontaminate and not compared:
        message = "has nothing to compare with: no file or data set is evaluated"
        yield problem(config, "data.decontaminate", message, "name benchmarks in data.decontaminate_against, or false")


def shared_names(config: Config) -> Iterator[Problem]:
    """Sources of training and evaluation that share a name: rewards go by the name, so they must be the same."""
    trained = {source.name: source for source in config.data.train}
    for i, source in enumerate(config.data.evaluation):
        other = trained.get(source.name)
        if other is not None and other.rewards != source.rewards:
            message = f"is a training source too, which has the rewards {other.rewards}"
            yield problem(config, f"data.evaluation.{i}.name", message, "another name, or the same rewards")


def programs(config: Config) -> Iterator[Problem]:
    """The synthetic task that asks for a program, judged by a verifier of short answers."""
    verifiers = {r.name: r.params.get("verifier") for r in config.rewards if r.name.partition("/")[0] == "accuracy"}
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        for i, source in enumerate(entries):
            if source.kind != "synthetic" or source.path != "transpose":
                continue
            used = [v for name, v in verifiers.items() if source.rewards is None or name in source.rewards]
            if any(v != "code" for v in used):
                message = "asks for a program, which only the verifier `code` runs"
                fix = "{name: accuracy, params: {verifier: code}}, named in the source's rewards"
                yield problem(config, f"data.{section}.{i}.path", message, fix)


def _source(config: Config, key: str, source: SourceConfig, rewarded: list[str]) -> Iterator[Problem]:
    if source.path is None:
        what = "the task's name" if source.kind == "synthetic" else "a file, folder or hub id"
        yield problem(config, f"{key}.path", "has no path", f"give {what}")
    if source.rewards is not None and (not source.rewards or not set(source.rewards) <= set(rewarded)):
        fix = f"some of {', '.join(rewarded)}, or null for all"
        yield problem(config, f"{key}.rewards", "are not among `rewards`, or none", fix)
