"""References: `@name` refers to the output of a stage or to an input of the recipe. Collect what each stage reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.recipe.stages import KINDS, Recipe, Stage
from r1ray.tasks import is_user_defined
from r1ray.util.hints import nearest
from r1ray.util.imports import source_file


@dataclass(frozen=True, slots=True, kw_only=True)
class StageInput:
    """A model, data or source file that a stage reads. Producer: `stage_inputs`. Consumers: status, folder, plan."""

    reference: str  # `@name`, the path as written, or `module:name` of user-defined code
    path: Path
    stage: str | None  # the stage that produces it; None: it comes from outside the recipe
    hub: bool = False  # the name of a data set on the Hugging Face hub, unless the path exists
    late: bool = False  # read only after all samples exist


class References:
    """Resolve each `@name` of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self._inputs = {name: Path(i.path) for name, i in recipe.inputs.items()}
        self._outputs = {s.name: recipe.dir / s.name / KINDS[s.kind].output for s in recipe.stages}
        self._produces = {s.name: KINDS[s.kind].produces for s in recipe.stages}
        self._order = {s.name: i for i, s in enumerate(recipe.stages)}

    def look_up(self, text: str, reader: str, wanted: str) -> tuple[Path, str | None]:
        """Return the path of `text`, a reference or a path, and the stage that produces it, if any.

        Raises ConfigError if no stage or input has the name, if its stage does not precede the
        stage `reader` (so that no cycle is possible), or if it does not produce `wanted`, which is
        "model" or "data".
        """
        if not text.startswith("@"):
            return Path(text), None
        name = text[1:]
        if name in self._inputs:
            return self._inputs[name], None
        if name not in self._outputs:
            raise ConfigError(f"{text}: no such stage or input; {nearest(name, [*self._inputs, *self._outputs])}")
        if self._order[name] >= self._order[reader]:
            raise ConfigError(f"{text}: is {reader} itself or a later stage; a stage can only read from earlier ones")
        if self._produces[name] != wanted:
            raise ConfigError(f"{text}: expected a stage or input that produces {wanted}, got {self._produces[name]}")
        return self._outputs[name], name

    def resolve(self, value: Any) -> Any:
        """Return a copy of `value`, nested maps and lists, with each reference replaced by its path."""
        if isinstance(value, dict):
            return {k: self.resolve(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.resolve(v) for v in value]
        if isinstance(value, str) and value.startswith("@"):
            path = self._inputs.get(value[1:]) or self._outputs.get(value[1:])
            return value if path is None else str(path)
        return value

    def within(self, value: Any) -> Iterator[str]:
        """Yield every string in `value` that refers to an input or a stage."""
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            for inner in value:
                yield from self.within(inner)
        elif isinstance(value, str) and value[:1] == "@" and (value[1:] in self._inputs or value[1:] in self._outputs):
            yield value


def stage_inputs(stage: Stage, config: Config | None, references: References) -> tuple[StageInput, ...]:
    """Return everything that the stage reads, each once.

    Raises ConfigError for a reference that `References.look_up` refuses, and for one in a key that
    takes neither a model nor data.
    """
    found: dict[str, StageInput] = {}
    early, late = list(_paths(stage, config)), list(_late_paths(stage, config))
    early_names = {text for text, _, _ in early}
    for text, wanted, hub in [*early, *late]:
        if text not in found:
            path, producer = references.look_up(text, stage.name, wanted)
            on_hub = hub and not text.startswith("@")
            found[text] = StageInput(
                reference=text, path=path, stage=producer, hub=on_hub, late=text not in early_names
            )
    for name, what in _user_code(stage, config):
        found[name] = StageInput(reference=name, path=source_file(name, what=what), stage=None)
    everything = [asdict(config) if config else {}, dict(stage.options)]
    misplaced = Counter(references.within(everything)) - Counter(text for text, _, _ in [*early, *late])
    if misplaced:
        raise ConfigError(f"{', '.join(sorted(misplaced))}: used in a key that takes neither a model nor data")
    return tuple(found.values())


def _paths(stage: Stage, config: Config | None) -> Iterator[tuple[str, str, bool]]:
    """Yield (path or reference, "model" or "data", whether it may be a name on the hub)."""
    for option, wanted in (("model", "model"), ("data", "data"), ("against", "data")):
        value = stage.options.get(option, [])
        values = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for each in values:
            yield each, wanted, stage.kind == "eval" and wanted == "data"
    if config is None:
        return
    sections = KINDS[stage.kind].sections
    if "model" in sections:
        yield config.model.path, "model", False
    if "data" in sections:
        data = config.data
        sources = [*data.train, *data.evaluation, *(data.decontaminate_against if data.decontaminate else [])]
        for source in sources:
            if source.kind != "synthetic" and source.path:
                yield source.path, "data", source.kind == "hf"
    for reward in config.rewards if "rewards" in sections else []:
        if isinstance(path := reward.params.get("path"), str):
            yield path, "model", False


def _user_code(stage: Stage, config: Config | None) -> Iterator[tuple[str, str]]:
    """Yield (`module:name`, its role for messages) of all user-defined code.

    Its source determines the output, as data does.
    """
    if config is None:
        return
    sections = KINDS[stage.kind].sections
    for reward in config.rewards if "rewards" in sections else []:
        if ":" in reward.name:
            yield reward.name, "the reward"
    if "algorithm" in sections:
        for key, path in (("loss", config.algorithm.loss), ("advantage", config.algorithm.advantage)):
            if ":" in path:
                yield path, f"algorithm.{key}"
    for source in [*config.data.train, *config.data.evaluation] if "data" in sections else []:
        if source.kind == "synthetic" and source.path and is_user_defined(source.path):
            yield source.path, "the task"


def _late_paths(stage: Stage, config: Config | None) -> list[tuple[str, str, bool]]:
    """The same as `_paths`, of what curation reads after all samples exist."""
    if config is None or "curation" not in KINDS[stage.kind].sections:
        return []
    return [(general.path, "data", general.kind == "hf") for general in config.curation.general]
