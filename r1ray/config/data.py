"""Checks of the sections `data` and `rewards`. See `checks` for what a check is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from r1ray.config.problems import Problem, problem
from r1ray.config.rules import TASK_VERIFIERS
from r1ray.config.schema import Config, SourceConfig


def rewards(config: Config) -> Iterator[Problem]:
    """Find a configuration without a weighted reward, and rewards that are named twice.

    A reward of weight 0 is measured and reported, not trained on.
    """
    if not any(reward.weight for reward in config.rewards):
        fix = "add one, e.g. [{name: accuracy}, {name: format}]"
        yield problem(config, "rewards", "has no reward with a weight other than 0", fix)
    seen: set[str] = set()
    for i, reward in enumerate(config.rewards):
        if reward.name in seen:
            fix = "keep one of them, or add a suffix, e.g. accuracy/math"
            yield problem(config, f"rewards.{i}.name", "is the name of an earlier reward", fix)
        seen.add(reward.name)


def sources(config: Config) -> Iterator[Problem]:
    """Find missing training prompts and sources that cannot be read."""
    if not config.data.train:
        yield problem(config, "data.train", "is empty", "add a source of training prompts, as conf/tiny.yaml does")
    elif all(source.from_step for source in config.data.train):
        fix = "set it to 0 for one source"
        yield problem(config, "data.train.0.from_step", "leaves the first step without a source", fix)
    rewarded = [r.name for r in config.rewards]
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        yield from unique_names(config, section, entries)
        for i, source in enumerate(entries):
            key = f"data.{section}.{i}"
            yield from _source(config, key, source, rewarded)
            if section == "evaluation" and source.kind == "synthetic" and source.limit is None:
                fix = "set the number of problems, e.g. 256"
                yield problem(config, f"{key}.limit", "is not set, but a synthetic task has no end", fix)


def unique_names(config: Config, section: str, entries: Sequence[SourceConfig]) -> Iterator[Problem]:
    """Find names that two sources of `data.<section>` share."""
    seen: set[str] = set()
    for i, source in enumerate(entries):
        if source.name in seen:
            fix = "give each source its own name"
            yield problem(config, f"data.{section}.{i}.name", "is the name of an earlier source", fix)
        seen.add(source.name)


def decontamination(config: Config) -> Iterator[Problem]:
    """Find sources that training prompts cannot be compared with, and a decontamination without such sources."""
    data = config.data
    for i, source in enumerate(data.decontaminate_against):
        key = f"data.decontaminate_against.{i}"
        yield from _source(config, key, source, [])
        if source.kind == "synthetic":
            message = "is a synthetic task, whose splits never overlap"
            yield problem(config, f"{key}.kind", message, "use jsonl, parquet or hf, or remove the source")
    compared = any(source.kind != "synthetic" for source in (*data.evaluation, *data.decontaminate_against))
    if data.decontaminate and not compared:
        message = "has nothing to compare with: data.evaluation has no file or data set"
        fix = "add benchmarks to data.decontaminate_against, or set it to false"
        yield problem(config, "data.decontaminate", message, fix)


def shared_names(config: Config) -> Iterator[Problem]:
    """Find training and evaluation sources of one name with different rewards: the name selects the rewards."""
    trained = {source.name: source for source in config.data.train}
    for i, source in enumerate(config.data.evaluation):
        other = trained.get(source.name)
        if other is not None and other.rewards != source.rewards:
            message = f"is also the name of a training source, which has other rewards: {other.rewards}"
            yield problem(config, f"data.evaluation.{i}.name", message, "rename it, or use the same rewards")


def task_verifiers(config: Config) -> Iterator[Problem]:
    """Find synthetic tasks that need a certain verifier next to another one."""
    verifiers = {r.name: r.params.get("verifier") for r in config.rewards if r.name.partition("/")[0] == "accuracy"}
    for section, entries in (("train", config.data.train), ("evaluation", config.data.evaluation)):
        for i, source in enumerate(entries):
            needed = TASK_VERIFIERS.get(str(source.path)) if source.kind == "synthetic" else None
            used = [v for name, v in verifiers.items() if source.rewards is None or name in source.rewards]
            if needed and any(v != needed for v in used):
                message = f"has answers that only the verifier `{needed}` judges"
                reward = f"{{name: accuracy, params: {{verifier: {needed}}}}}"
                fix = f"add the reward {reward} and name it in the source's rewards"
                yield problem(config, f"data.{section}.{i}.path", message, fix)


def _source(config: Config, key: str, source: SourceConfig, rewarded: list[str]) -> Iterator[Problem]:
    if source.path is None:
        what = "the name of a task" if source.kind == "synthetic" else "a file, a folder or a hub id"
        yield problem(config, f"{key}.path", "is not set", f"give {what}")
    if source.rewards is not None and (not source.rewards or not set(source.rewards) <= set(rewarded)):
        names = ", ".join(rewarded)
        yield problem(
            config, f"{key}.rewards", "are not names out of `rewards`", f"use some of {names}, or null for all"
        )
