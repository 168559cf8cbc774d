"""Recipe, its stages and claims, and the kinds of stages: command, options and output of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from r1ray.config.sources import Source
from r1ray.config.uses import Use

ValueType = Literal["string", "number", "integer", "list of strings", "map of strings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A model or data from outside the recipe, referred to as `@name`.

    Producer: reading. Consumers: references, plan.
    """

    name: str
    path: str  # a folder or file
    parameters: float | None  # active parameters of a model that does not exist yet; for the cost estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """Expected size of a stage before it has run. Only the cost estimate uses it."""

    rows: int | None = None  # prompts (sample), conversations (sft), rows (reward_model), problems (eval);
    # samples of an evaluation if no `k` is given
    tokens: int | None = None  # mean length of a completion or conversation
    seconds: float | None = None  # wall time, if it was measured elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage as its recipe states it, references unresolved.

    Producer: reading. Consumers: references, tasks, plan.
    """

    name: str
    kind: str  # a key of `KINDS`
    doc: str = ""  # one sentence for the report
    layers: tuple[Source, ...] = ()  # its configuration; later ones win
    options: Mapping[str, Any] = field(default_factory=dict)  # of its command
    evaluate: bool = True  # whether the recipe's evaluation follows, if the stage trains a policy
    expect: Expect = field(default_factory=Expect)
    published: str = ""  # published cost of the same stage, with its source


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An expected relation between a figure of one policy and another policy or a number. Producer: parsing."""

    name: str
    figure: str  # as in results.json: accuracy, parts/format ...
    of: str  # the policy
    relation: str  # one of `parsing.RELATIONS`
    bound: str | float  # a policy (its value of the same figure) or a number
    margin: float  # added to the bound
    benchmark: str | None  # None: the recipe's first one


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe at one size. Producer: `reading.read_recipe`. Consumers: tasks, runner, plan."""

    name: str
    dir: Path  # the folder that the recipe writes
    seed: int  # `run.seed` of each stage that sets no other
    doc: str
    files: tuple[str, ...]  # the recipe file and its overlays
    inputs: Mapping[str, Input]
    stages: tuple[Stage, ...]  # in the order of the file, with an evaluation after each policy
    claims: tuple[Claim, ...] = ()
    parallel: int = 1  # how many stages may run at once

    def stage(self, name: str) -> Stage:
        """Return the stage called `name`. Raises KeyError if there is none."""
        found = next((s for s in self.stages if s.name == name), None)
        if found is None:
            raise KeyError(name)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Properties that all stages of one kind share. Consumers: reading, tasks, status, runner."""

    name: str
    command: tuple[str, ...]  # of r1ray
    use: Use | None = None  # purpose of its configuration; None: the kind takes no configuration
    sections: tuple[str, ...] = ()  # configuration sections that determine the output
    options: Mapping[str, ValueType]  # of the command, with the type of each
    required_options: tuple[str, ...] = ()
    output: str  # path inside the stage's folder
    produces: Literal["model", "data", "results"]
    trains_policy: bool = False  # whether its model is a policy to evaluate
    resumable: bool = False  # whether an interrupted stage continues from its own checkpoint


_RL = ("run", "model", "data", "rewards", "rollout", "reward_worker", "queue", "algorithm", "learner", "evaluation")
_SAMPLE = ("run", "model", "data", "rewards", "rollout", "reward_worker", "sampling")

_EVAL_OPTIONS: dict[str, ValueType] = {
    "model": "string",
    "benchmarks": "list of strings",
    "k": "integer",
    "temperature": "number",
    "top_p": "number",
    "max_new_tokens": "integer",
    "limit": "integer",
    "data": "map of strings",
    "against": "list of strings",
}


def _training(name: str, use: Use, sections: tuple[str, ...], *, trains_policy: bool = False) -> Kind:
    """A kind whose command has the name of its use and ends with a model."""
    return Kind(
        name=name,
        command=(use,),
        use=use,
        sections=sections,
        options={},
        output="final",
        produces="model",
        trains_policy=trains_policy,
        resumable=True,
    )


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="tiny",
            command=("tiny",),
            options={"size": "string", "flavor": "string"},
            output="model",
            produces="model",
        ),
        Kind(
            name="tiny_data",
            command=("tiny-data",),
            options={"about": "string", "count": "integer"},
            required_options=("about",),
            output="data.jsonl",
            produces="data",
        ),
        _training("rl", "train", _RL, trains_policy=True),
        _training("sft", "sft", ("run", "model", "data", "learner", "sft"), trains_policy=True),
        Kind(
            name="sample",
            command=("sample",),
            use="sample",
            sections=(*_SAMPLE, "curation"),
            options={},
            output="dataset",
            produces="data",
            resumable=True,
        ),
        _training("reward_model", "reward-model", ("run", "model", "data", "learner", "reward_model")),
        Kind(
            name="eval",
            command=("eval",),
            use="eval",
            sections=_SAMPLE,
            options=_EVAL_OPTIONS,
            required_options=("model", "benchmarks"),
            output="results.json",
            produces="results",
            resumable=True,
        ),
    )
}


def has_type(value: Any, wanted: ValueType) -> bool:
    """Return whether `value` has the type `wanted`. Empty strings and empty lists do not count; true is no number."""
    if wanted == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted == "list of strings":
        return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
    if wanted == "map of strings":
        return isinstance(value, dict) and all(isinstance(v, str) for pair in value.items() for v in pair)
    return isinstance(value, str) and bool(value)


def flags(options: Mapping[str, Any], *skip: str) -> Iterator[str]:
    """Yield options as command-line words, except those named in `skip`. A list or a map repeats its option."""
    for name, value in options.items():
        if name in skip:
            continue
        option = f"--{name.replace('_', '-')}"
        values = [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else value
        for each in values if isinstance(values, list) else [values]:
            yield from (option, str(each))
