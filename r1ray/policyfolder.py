"""Which model a folder stands for: a model itself, a run's last one, or what a recipe came to.

model folder   config.json                  itself
run folder     run.json                     final/
recipe folder  recipe.json                  the finished policy that stands on the most stages
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from r1ray.errors import ConfigError
from r1ray.files import read_json
from r1ray.runfolder import RunFolder

RECIPE = "recipe.json"
POLICY_KINDS = ("rl", "sft")
"""Kinds of stages that train a policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A model and where it comes from. Producer: `find_policy`. Consumers: chat, serve, export."""

    model: Path  # in the Hugging Face format; a run that is not finished has none yet
    run: Path | None = None  # the run folder that it is the result of
    recipe: Path | None = None  # the recipe folder that the run belongs to
    stage: str | None = None  # its name there

    @property
    def template(self) -> str | None:
        """`data.template` of the run's training; None for a model folder of unknown training."""
        return self.setting("data", "template")

    def setting(self, section: str, key: str) -> str | None:
        """A value of the run's configuration; None where it has none or there is no run."""
        if self.run is None:
            return None
        config = yaml.safe_load(RunFolder(self.run).config.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ConfigError(f"{self.run}/config.yaml holds no configuration: put back what the run was started with")
        value = (config.get(section) or {}).get(key)
        return None if value is None else str(value)

    def ready(self) -> Policy:
        """Itself. Raises ConfigError where the run has not written its final model yet."""
        if not (self.model / "config.json").exists():
            raise ConfigError(
                f"{self.run} has no final model yet: let the run end, or make a model of its newest checkpoint with "
                f"`r1ray export {self.run} FOLDER`"
            )
        return self


def find_policy(path: Path) -> Policy:
    """The policy that `path` stands for. Raises ConfigError for a folder that is none of the three kinds."""
    if (path / RECIPE).exists():
        return _of_recipe(path)
    if (path / "run.json").exists():
        RunFolder.open(path)
        above = path.parent if (path.parent / RECIPE).exists() else None
        return Policy(model=path / "final", run=path, recipe=above, stage=path.name if above else None)
    if (path / "config.json").exists():
        return Policy(model=path)
    raise ConfigError(
        f"{path} is neither a model folder (config.json), a run folder (run.json) nor a recipe's ({RECIPE})"
    )


def _of_recipe(path: Path) -> Policy:
    stages = {str(stage["name"]): stage for stage in read_json(path / RECIPE)["stages"]}
    best = main_policy(stages)
    if best is None:
        raise ConfigError(f"{path} has no finished stage that trained a policy: run its recipe first")
    return find_policy(path / best)


def main_policy(stages: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The name of the finished policy that stands on the most stages, the last one among equals; None: there is none.

    `stages` by name, as in recipe.json, in their order. In `r1` that is the model after the last reinforcement learning and
    not a distilled student, though students come last in the file.
    """
    done = [n for n, s in stages.items() if s["kind"] in POLICY_KINDS and s["state"] == "done"]
    return max(reversed(done), key=lambda name: len(ancestors(name, stages)), default=None)


def ancestors(name: str, stages: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The stages whose outputs went into `name`, however far back; inputs from outside are none."""
    found: set[str] = set()
    waiting = list(stages[name]["inputs"])
    while waiting:
        each = str(waiting.pop()).removeprefix("@")
        if each in stages and each not in found:
            found.add(each)
            waiting += stages[each]["inputs"]
    return found
