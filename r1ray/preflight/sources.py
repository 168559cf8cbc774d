"""Check opened prompts against the rest of a configuration: the batch, the tokenizer's model, the rewards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config, SourceConfig
from r1ray.config.uses import Use
from r1ray.data.source import Prompts
from r1ray.data.tokenizer import Tokenizer
from r1ray.errors import DataError
from r1ray.models.folder import ModelShape
from r1ray.rewards.base import Reward, Sample
from r1ray.rewards.registry import build, kind_of
from r1ray.types import PromptTask

JUDGED_ROWS = 32
"""Rows of each source on which the verifiers are tried."""

VERIFYING = ("accuracy", "cosine_length")
"""Kinds of rewards that read the truth of a row before the response."""


def tokenizer_problems(config: Config, tokenizer: Tokenizer, shape: ModelShape) -> Iterator[Problem]:
    """A tokenizer of another model, whose ids the model has no row for."""
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= shape.vocabulary:
        message = f"has a tokenizer with ids up to {highest}, and a model of {shape.vocabulary} ids (vocab_size)"
        yield problem(config, "model.path", message, "a folder in which tokenizer and model belong together")


def batch_problems(config: Config, prompts: Prompts) -> Iterator[Problem]:
    """Training sources with fewer prompts than one step takes: each step would train on the same prompt repeatedly."""
    length = None if prompts.training is None else prompts.training.finite_length
    wanted = config.learner.groups_per_step
    if length is not None and length < wanted:
        message = f"is more than the {length} prompts of data.train: a step would hold the same prompt several times"
        yield problem(config, "learner.groups_per_step", message, f"at most {length}, or more rows")


def judging_problems(config: Config, prompts: Prompts, use: Use) -> Iterator[Problem]:
    """Sources of which no verifier in use can judge a row, such as `verifier: task` on a file."""
    verifiers = {r.name: build(r.name, r.params) for r in config.rewards if kind_of(r.name) in VERIFYING}
    section: dict[str, Sequence[SourceConfig]] = {"evaluation": config.data.evaluation}
    tried: dict[str, Mapping[str, Sequence[PromptTask]]] = {
        "evaluation": {name: rows[:JUDGED_ROWS] for name, rows in prompts.problems.items()}
    }
    if use == "sample":
        section, tried = {"train": config.data.train}, {"train": tried["evaluation"]}
    elif prompts.training is not None:
        section["train"], tried["train"] = config.data.train, prompts.training.first(JUDGED_ROWS)
    for name in sorted(section, reverse=True):
        for i, source in enumerate(section[name]):
            rows = tried[name].get(source.name, ())
            for reward, verifier in verifiers.items():
                used = source.rewards is None or reward in source.rewards
                if used and rows and (reason := _refusal(verifier, rows)) is not None:
                    message = f"none of its first {len(rows)} rows can be judged by the reward {reward}: {reason}"
                    fix = "another verifier, other columns, or `rewards` of the source without it"
                    yield problem(config, f"data.{name}.{i}.name", message, fix)


def _refusal(verifier: Reward, rows: Sequence[PromptTask]) -> str | None:
    """Why the verifier refuses the first row, if it refuses all; None if it accepts one."""
    first = None
    for row in rows:
        try:
            # It reads the truth first; nothing is run for an empty response.
            verifier(Sample(response="", answer=row.answer, task=row.task, messages=row.messages, meta=row.meta))
        except DataError as e:
            first = first or str(e)
        else:
            return None
    return first
