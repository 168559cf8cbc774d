"""A stage while the files of its recipe are read, and the keys that each part of a recipe has."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from r1ray.config.sources import Source
from r1ray.recipe.records import Expect

TOP = ("name", "dir", "seed", "doc", "inputs", "common", "evaluation", "stages", "claims")
COMMON = ("extends", "config")
STAGE = ("kind", "doc", "extends", "config", "options", "evaluate", "evaluation", "expect", "published")
EVALUATION_KEYS = ("inputs", "extends", "config", "options", "expect")
INPUT = ("path", "parameters")
EXPECT = tuple(f.name for f in fields(Expect))
RUNNERS_KEYS = ("run.dir", "run.name", "checkpoint.export_final")
EVALUATIONS_KEYS = (*RUNNERS_KEYS, "model.path", "data.template", "data.system_prompt")
"""Keys that the runner sets, in any stage and in evaluations."""


@dataclass
class Draft:
    """A stage, or the evaluation that all policies share."""

    name: str
    kind: str
    layers: list[Source] = field(default_factory=list)
    asked: list[Source] = field(default_factory=list)  # layers of the evaluation of this policy, file by file
    options: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)  # doc, evaluate, published
    expect: dict[str, Any] = field(default_factory=dict)

    def update_options(self, options: dict[str, Any]) -> None:
        """Take what a later file says; null takes an option back."""
        self.options.update(options)
        self.options = {name: value for name, value in self.options.items() if value is not None}
