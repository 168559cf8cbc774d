"""Turn each stage into a Task: its command, checked configuration, inputs and fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from r1ray.config.identity import may_change
from r1ray.config.load import load_sources
from r1ray.config.schema import Config
from r1ray.config.sources import Source, read_in_order
from r1ray.errors import ConfigError
from r1ray.evaluation.benchmarks.registry import find
from r1ray.recipe.references import References, StageInput, stage_inputs
from r1ray.recipe.stages import KINDS, Kind, Recipe, Stage, flags
from r1ray.util.yaml_text import write_yaml

OUTPUT_KEYS = ("run.steps", "curation")
"""Keys that a resumed command may change although they determine the output of a stage."""

RESPONSE_FORMATS = {"r1_zero": "r1_zero", "r1": "think"}
"""Template -> the response format that it asks for.

For any other template a recipe states under `rewards` what its evaluations measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One stage, ready to be inspected or run. Producer: `make_tasks`. Consumers: status, runner, plan."""

    stage: Stage
    kind: Kind
    seed: int
    folder: Path  # the stage's own folder
    config_file: Path  # where its configuration is written when it starts; unused if it has none
    log: Path
    config: Config | None  # checked; references unresolved
    config_yaml: str  # the same with references resolved; empty if it has none
    options: Mapping[str, Any]  # references resolved
    inputs: tuple[StageInput, ...]
    fingerprint: Mapping[
        str, Any
    ]  # plain JSON; a finished stage stays valid while this and the hashes of `inputs` are unchanged

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.stage.name

    @property
    def output(self) -> Path:
        """File or folder that the stage produces."""
        return self.folder / self.kind.output

    def command(self, *, resume: bool) -> list[str]:
        """Return the words after `r1ray` that start the stage, or resume it if `resume`."""
        words = [*self.kind.command]
        if self.kind.name in ("tiny", "tiny_data"):
            return [*words, str(self.output), *flags(self.options), "--seed", str(self.seed)]
        if resume:
            return [*words, "--resume", str(self.folder), str(self.config_file)]
        if self.kind.name == "eval":
            benchmarks = ["--benchmarks", ",".join(self.options["benchmarks"])]
            rest = [*benchmarks, *flags(self.options, "model", "benchmarks"), "--out", str(self.folder)]
            return [*words, self.options["model"], str(self.config_file), *rest]
        return [*words, str(self.config_file)]


def make_tasks(recipe: Recipe) -> tuple[Task, ...]:
    """Return the tasks of all stages, in order.

    Raises ConfigError that names every stage with an invalid configuration or reference.
    """
    references = References(recipe)
    configs: dict[str, Config] = {}
    made: list[Task] = []
    errors: dict[str, str] = {}
    # Evaluations last: their prompts follow the configuration of a stage that may come after them.
    for stage in sorted(recipe.stages, key=lambda stage: stage.kind == "eval"):
        policies = {s.name: configs[s.name] for s in recipe.stages if KINDS[s.kind].trains_policy and s.name in configs}
        try:
            if KINDS[stage.kind].use:
                configs[stage.name] = _config(recipe, stage, policies)
        except ConfigError as e:
            errors[stage.name] = f"stage {stage.name}: {e}"
    for stage in recipe.stages:
        if stage.name in errors:
            continue
        try:
            made.append(_task(recipe, stage, references, configs.get(stage.name)))
        except ConfigError as e:
            errors[stage.name] = f"stage {stage.name}: {e}"
    if errors:
        raise ConfigError("\n".join(errors[stage.name] for stage in recipe.stages if stage.name in errors))
    return tuple(made)


def _task(recipe: Recipe, stage: Stage, references: References, config: Config | None) -> Task:
    kind = KINDS[stage.kind]
    folder = recipe.dir / stage.name
    for benchmark in stage.options["benchmarks"] if stage.kind == "eval" else []:
        find(benchmark)  # fail now rather than after days of training
    plain = asdict(config) if config else {}
    inputs = stage_inputs(stage, config, references)
    resolved = references.resolve(plain)
    return Task(
        stage=stage,
        kind=kind,
        seed=config.run.seed if config else recipe.seed,
        folder=folder,
        config_file=recipe.dir / "stages" / f"{stage.name}.yaml",
        log=recipe.dir / "logs" / f"{stage.name}.log",
        config=config,
        config_yaml=write_yaml(resolved) if config else "",
        options=references.resolve(dict(stage.options)),
        inputs=inputs,
        fingerprint={
            "command": " ".join(kind.command),
            "options": dict(stage.options),
            "config": _output_config(config, kind) if config else {"seed": recipe.seed},
        },
    )


def _config(recipe: Recipe, stage: Stage, policies: Mapping[str, Config]) -> Config:
    """Load and check the configuration of the stage. Raises ConfigError as `load_config` does."""
    own: dict[str, Any] = {"run": {"dir": str(recipe.dir / stage.name), "name": f"{recipe.name}/{stage.name}"}}
    own["checkpoint"] = {"export_final": True}
    if stage.kind == "eval":
        own |= {**eval_overrides_for(stage.options["model"], policies), "model": {"path": stage.options["model"]}}
        if any("rewards" in layer.content for layer in stage.layers):  # the recipe's own rewards win
            own.pop("rewards", None)
    first = Source(name=recipe.files[0], content={"run": {"seed": recipe.seed}}, lines={})
    last = Source(name="the recipe", content=own, lines={})
    use = KINDS[stage.kind].use
    assert use is not None
    return load_sources([*read_in_order([]), first, *stage.layers, last], use=use).config


def eval_overrides_for(model: str, trained: Mapping[str, Config]) -> dict[str, Any]:
    """Return configuration keys for the evaluation of `model`, a reference, so that it matches training.

    They set the prompt template and the rewards that are measured besides accuracy. `trained` maps
    each policy stage to its configuration. A model from outside is evaluated like the first policy
    that is trained from it.
    """
    config = trained.get(model[1:]) or next((c for c in trained.values() if c.model.path == model), None)
    if config is None:
        return {}
    keys: dict[str, Any] = {"data": {"template": config.data.template, "system_prompt": config.data.system_prompt}}
    if config.data.template_args:
        keys["data"]["template_args"] = dict(config.data.template_args)
    if (style := RESPONSE_FORMATS.get(config.data.template)) is not None:
        keys["rewards"] = [{"name": "format", "params": {"style": style}}, {"name": "language"}]
    return keys


def _output_config(config: Config, kind: Kind) -> dict[str, Any]:
    """Return the configuration values that determine the output and differ from their defaults, by key.

    Keys that only affect speed and placement are omitted, so that changing them does not invalidate
    a finished stage. Defaults are omitted so that a new key does not invalidate all stages.
    """
    flat: dict[str, Any] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add(f"{key}.{name}", inner)
        elif key.startswith(OUTPUT_KEYS) or not may_change(key):
            flat[key] = value

    for section in kind.sections:
        add(section, _non_defaults(getattr(config, section)))
    return flat


def _non_defaults(value: Any) -> Any:
    """Return a dataclass as a map of the values that differ from its defaults, anything else unchanged."""
    if isinstance(value, list | tuple):
        return [_non_defaults(v) for v in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return {f.name: _non_defaults(v) for f in fields(value) if (v := getattr(value, f.name)) != _default(f)}


def _default(f: Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default
