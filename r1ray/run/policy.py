"""The model of a folder, which may be a model, a run or a recipe.

model folder   config.json                  itself
run folder     run.json                     final/
recipe folder  recipe.json                  the finished policy that builds on the most stages
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError
from r1ray.run.folder import RunFolder
from r1ray.util.files import read_json
from r1ray.util.yaml_text import read_yaml

RECIPE = "recipe.json"
POLICY_KINDS = ("rl", "sft")
"""Kinds of stages that train a policy."""
EVALUATION = "eval_"
"""Prefix of the name of a stage that evaluates another stage or an input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A model and where it comes from. Producer: `find_policy`. Consumers: chat, serve, export."""

    model: Path  # in the Hugging Face format; an unfinished run has none yet
    run: Path | None = None  # the run folder that produced it
    recipe: Path | None = None  # the recipe folder that the run belongs to
    stage: str | None = None  # its name there

    @property
    def template(self) -> str | None:
        """`data.template` that the run trained with; None for a model folder without a run."""
        return self.setting("data", "template")

    @property
    def template_args(self) -> dict[str, Any]:
        """`data.template_args` that the run trained with; empty for a model folder without a run."""
        return dict(self._value("data", "template_args") or {})

    def setting(self, section: str, key: str) -> str | None:
        """A value of the run's configuration; None if it is not set or there is no run."""
        value = self._value(section, key)
        return None if value is None else str(value)

    def _value(self, section: str, key: str) -> Any:
        if self.run is None:
            return None
        config = read_yaml(RunFolder(self.run).config.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ConfigError(
                f"{self.run}/config.yaml is not a configuration: restore the one that the run started with"
            )
        return (config.get(section) or {}).get(key)

    def ready(self) -> Policy:
        """Return the policy itself. Raises ConfigError if the run has not written its final model yet."""
        if not (self.model / "config.json").exists():
            raise ConfigError(
                f"{self.run} has no final model yet: wait until the run ends, or export its newest checkpoint with "
                f"`r1ray export {self.run} FOLDER`"
            )
        return self


def find_policy(path: Path) -> Policy:
    """The policy of a model, run or recipe folder. Raises ConfigError for any other folder."""
    if (path / RECIPE).exists():
        return _of_recipe(path)
    if (path / "run.json").exists():
        RunFolder.open(path)
        above = path.parent if (path.parent / RECIPE).exists() else None
        return Policy(model=path / "final", run=path, recipe=above, stage=path.name if above else None)
    if (path / "config.json").exists():
        return Policy(model=path)
    raise ConfigError(
        f"{path}: expected a model folder (config.json), a run folder (run.json) or a recipe folder ({RECIPE})"
    )


def _of_recipe(path: Path) -> Policy:
    stages = {str(stage["name"]): stage for stage in read_json(path / RECIPE)["stages"]}
    found = leading_policies(stages)
    if not found:
        raise ConfigError(f"{path} has no finished stage that trained a policy: run its recipe first")
    if len(found) > 1:
        raise ConfigError(f"{path} has several final policies: give the folder of one, e.g. {path / found[0]}")
    return find_policy(path / found[0])


def leading_policies(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of the finished policies that build on the most stages; of those that share a stage only the last one.

    `stages` by name, in the order of recipe.json. A single name is the result of the recipe: in `r1` the model after
    the last reinforcement learning, not a distilled student, although students come last in the file. Several names are
    independent policies, as the students of `distill`. Stages without inputs, which make a base or data, do not count.
    """
    done = [n for n, s in stages.items() if s["kind"] in POLICY_KINDS and s["state"] == "done"]
    lines = {name: {a for a in ancestors(name, stages) if stages[a]["inputs"]} | {name} for name in done}
    most = max(map(len, lines.values()), default=0)
    kept: list[str] = []
    for name in (n for n in reversed(done) if len(lines[n]) == most):
        if not any(lines[name] & lines[other] for other in kept):
            kept.insert(0, name)
    return kept


def ancestors(name: str, stages: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The stages that `name` depends on, directly or not; inputs from outside the recipe are left out."""
    found: set[str] = set()
    waiting = list(stages[name]["inputs"])
    while waiting:
        each = str(waiting.pop()).removeprefix("@")
        if each in stages and each not in found:
            found.add(each)
            waiting += stages[each]["inputs"]
    return found
