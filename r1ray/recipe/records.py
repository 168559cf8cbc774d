"""What a recipe is, once its files are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1ray.config.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A model or data from outside the recipe. `@name` stands for it. Producer: `reading`. Consumers: graph, cost."""

    name: str
    path: str  # a folder or file
    parameters: float | None  # of a model that is not there yet, active ones; for the estimate of the cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What is expected of a stage before it has run; only the estimate of its cost uses it."""

    rows: int | None = (
        None  # prompts of a sampling, conversations of an SFT, rows of preferences; problems of an evaluation
    )
    # (its samples, where no `k` is given)
    tokens: int | None = None  # of a completion or conversation, on average
    seconds: float | None = None  # wall time where it was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage as its recipe states it, references unresolved. Producer: `reading`. Consumers: graph, tasks, cost."""

    name: str
    kind: str  # of `kinds.KINDS`
    doc: str = ""  # one sentence for people
    layers: tuple[Source, ...] = ()  # its configuration; later ones win
    options: Mapping[str, Any] = field(default_factory=dict)  # of its command
    evaluate: bool = True  # whether the recipe's evaluation follows, where the stage gives a policy
    expect: Expect = field(default_factory=Expect)
    published: str = ""  # what the same stage cost elsewhere, with its source


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A figure of one policy that is to be at least, above or below another's or a number. Producer: claims."""

    name: str
    figure: str  # as in results.json: accuracy, parts/format ...
    of: str  # the policy
    relation: str  # of `claims.RELATIONS`
    bound: str | float  # a policy, for its figure, or a number
    margin: float  # added to the bound
    benchmark: str | None  # None: the first one


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe at one size. Producer: `reading.read_recipe`. Consumers: graph, runner, plan."""

    name: str
    dir: Path  # everything that it writes
    seed: int  # `run.seed` of each stage that states no other
    doc: str
    files: tuple[str, ...]  # the recipe and its overlays
    inputs: Mapping[str, Input]
    stages: tuple[Stage, ...]  # in the order of the file, with an evaluation after each policy
    claims: tuple[Claim, ...] = ()  # what its policies are to reach

    def stage(self, name: str) -> Stage:
        """The stage called `name`; KeyError where there is none."""
        found = next((s for s in self.stages if s.name == name), None)
        if found is None:
            raise KeyError(name)
        return found
