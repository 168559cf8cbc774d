"""References: `@name` stands for the output of a stage, or for an input of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1ray.errors import ConfigError
from r1ray.recipe.kinds import KINDS
from r1ray.recipe.records import Recipe
from r1ray.util.hints import nearest


class References:
    """What each `@name` of a recipe stands for."""

    def __init__(self, recipe: Recipe) -> None:
        self._inputs = {name: Path(i.path) for name, i in recipe.inputs.items()}
        self._outputs = {s.name: recipe.dir / s.name / KINDS[s.kind].output for s in recipe.stages}
        self._gives = {s.name: KINDS[s.kind].gives for s in recipe.stages}
        self._order = {s.name: i for i, s in enumerate(recipe.stages)}

    def look_up(self, text: str, reader: str, wanted: str) -> tuple[Path, str | None]:
        """The path that `text`, a reference or a path, stands for in the stage `reader`, and the stage that makes it, if any.

        Raises ConfigError where no stage or input has the name, where the stage comes later than its reader (so a circle
        cannot be), or gives something else than `wanted` (model or data).
        """
        if not text.startswith("@"):
            return Path(text), None
        name = text[1:]
        if name in self._inputs:
            return self._inputs[name], None
        if name not in self._outputs:
            raise ConfigError(f"{text}: no such stage or input; {nearest(name, [*self._inputs, *self._outputs])}")
        if self._order[name] >= self._order[reader]:
            raise ConfigError(f"{text}: is {reader} itself or comes after it; a stage stands after all that it reads")
        if self._gives[name] != wanted:
            raise ConfigError(
                f"{text}: gives {self._gives[name]}, where a stage or input that gives {wanted} is needed"
            )
        return self._outputs[name], name

    def resolved(self, value: Any) -> Any:
        """`value` with the path in place of each reference in it."""
        if isinstance(value, dict):
            return {k: self.resolved(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.resolved(v) for v in value]
        if isinstance(value, str) and value.startswith("@"):
            path = self._inputs.get(value[1:]) or self._outputs.get(value[1:])
            return value if path is None else str(path)
        return value

    def within(self, value: Any) -> Iterator[str]:
        """Every text in `value` that is the reference of an input or a stage."""
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            for inner in value:
                yield from self.within(inner)
        elif isinstance(value, str) and value[:1] == "@" and (value[1:] in self._inputs or value[1:] in self._outputs):
            yield value
