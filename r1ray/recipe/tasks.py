"""Stage -> what runs: its configuration, its command, what it reads, and what makes it the same stage again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from r1ray.config.identity import may_change
from r1ray.config.load import load_sources
from r1ray.config.schema import Config
from r1ray.config.sources import Source, read_in_order
from r1ray.errors import ConfigError
from r1ray.evaluation.benchmarks.registry import find
from r1ray.recipe.eval_settings import eval_overrides_for
from r1ray.recipe.graph import References
from r1ray.recipe.kinds import KINDS, Kind, flags
from r1ray.recipe.records import Recipe, Stage
from r1ray.tasks import is_user_defined
from r1ray.util.imports import source_file

DECIDES = ("run.steps", "curation")
"""What a resume of the command may change, but not without making it another stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One thing that a stage reads. Consumers: standing, lineage, plan."""

    reference: str  # `@name`, the path as it is written, or the name of a reward of the user's
    path: Path
    stage: str | None  # whose output it is; None: from outside
    hub: bool = False  # a name on the Hugging Face hub, where it is no path here
    late: bool = False  # read when all samples are there


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One stage, ready to be looked at or run. Producer: `tasks`. Consumers: standing, runner, cost, plan."""

    stage: Stage
    kind: Kind
    seed: int
    folder: Path  # of the stage
    config_file: Path  # where its configuration is put when it begins; unused where it has none
    log: Path
    config: Config | None  # checked, references unresolved
    config_yaml: str  # the same, resolved; empty where it has none
    options: Mapping[str, Any]  # resolved
    reads: tuple[Read, ...]
    fingerprint: Mapping[str, Any]  # plain JSON; the stage is the same as long as this and the hashes of `reads` are

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def output(self) -> Path:
        return self.folder / self.kind.output

    def command(self, *, resume: bool) -> list[str]:
        """The words after `r1ray` that begin the stage, or continue it inside where its kind can."""
        words = [*self.kind.command]
        if self.kind.name in ("tiny", "tiny_data"):
            return [*words, str(self.output), *flags(self.options), "--seed", str(self.seed)]
        if self.kind.name == "reward_model":
            rest = [*flags(self.options, "data"), "--out", str(self.output), "--seed", str(self.seed)]
            rest += ["--resume"] if resume else []
            return [*words, self.options["data"], *rest]
        if resume:
            return [*words, "--resume", str(self.folder), str(self.config_file)]
        if self.kind.name == "eval":
            benchmarks = ["--benchmarks", ",".join(self.options["benchmarks"])]
            rest = [*benchmarks, *flags(self.options, "model", "benchmarks"), "--out", str(self.folder)]
            return [*words, self.options["model"], str(self.config_file), *rest]
        return [*words, str(self.config_file)]


def make_tasks(recipe: Recipe) -> tuple[Task, ...]:
    """All stages, each after what it reads.

    Raises ConfigError that names every stage whose configuration is refused, and every reference that cannot be.
    """
    references = References(recipe)
    configs: dict[str, Config] = {}
    made: list[Task] = []
    wrong: dict[str, str] = {}
    # Evaluations last: a model from outside is evaluated before the stage that says how it is asked.
    for stage in sorted(recipe.stages, key=lambda stage: stage.kind == "eval"):
        policies = {s.name: configs[s.name] for s in recipe.stages if KINDS[s.kind].policy and s.name in configs}
        try:
            if KINDS[stage.kind].use:
                configs[stage.name] = _config(recipe, stage, policies)
        except ConfigError as e:
            wrong[stage.name] = f"stage {stage.name}: {e}"
    for stage in recipe.stages:
        if stage.name in wrong:
            continue
        try:
            made.append(_task(recipe, stage, references, configs.get(stage.name)))
        except ConfigError as e:
            wrong[stage.name] = f"stage {stage.name}: {e}"
    if wrong:
        raise ConfigError("\n".join(wrong[stage.name] for stage in recipe.stages if stage.name in wrong))
    return tuple(made)


def _task(recipe: Recipe, stage: Stage, references: References, config: Config | None) -> Task:
    kind = KINDS[stage.kind]
    folder = recipe.dir / stage.name
    for benchmark in stage.options["benchmarks"] if stage.kind == "eval" else []:
        find(benchmark)  # now rather than after days of training
    plain = asdict(config) if config else {}
    reads = _reads(stage, config, references)
    resolved = references.resolved(plain)
    return Task(
        stage=stage,
        kind=kind,
        seed=config.run.seed if config else recipe.seed,
        folder=folder,
        config_file=recipe.dir / "stages" / f"{stage.name}.yaml",
        log=recipe.dir / "logs" / f"{stage.name}.log",
        config=config,
        config_yaml=yaml.safe_dump(_listed(resolved), sort_keys=False, allow_unicode=True) if config else "",
        options=references.resolved(dict(stage.options)),
        reads=reads,
        fingerprint={
            "command": " ".join(kind.command),
            "options": {key: value for key, value in stage.options.items() if key not in kind.placing},
            "config": _meaning(config, kind) if config else {"seed": recipe.seed},
        },
    )


def _config(recipe: Recipe, stage: Stage, policies: Mapping[str, Config]) -> Config:
    """The checked configuration of the stage. Raises ConfigError as `load_config` does."""
    own: dict[str, Any] = {"run": {"dir": str(recipe.dir / stage.name), "name": f"{recipe.name}/{stage.name}"}}
    own["checkpoint"] = {"export_final": True}
    if stage.kind == "eval":
        own |= {**eval_overrides_for(stage.options["model"], policies), "model": {"path": stage.options["model"]}}
        if any("rewards" in layer.content for layer in stage.layers):  # what the recipe states, it means
            own.pop("rewards", None)
    first = Source(name=recipe.files[0], content={"run": {"seed": recipe.seed}}, lines={})
    last = Source(name="the recipe", content=own, lines={})
    use = KINDS[stage.kind].use
    assert use is not None
    return load_sources([*read_in_order([]), first, *stage.layers, last], use=use).config


def _reads(stage: Stage, config: Config | None, references: References) -> tuple[Read, ...]:
    """Everything that the stage reads, each once. Raises ConfigError for a reference that cannot be."""
    found: dict[str, Read] = {}
    stated = list(_paths(stage, config))
    general = [text for text, _, _ in _late_paths(stage, config)]
    stated += _late_paths(stage, config)
    for text, wanted, hub in stated:
        if text not in found:
            path, producer = references.look_up(text, stage.name, wanted)
            late = text in general and not any(t == text for t, _, _ in stated[: len(stated) - len(general)])
            here = hub and not text.startswith("@")
            found[text] = Read(reference=text, path=path, stage=producer, hub=here, late=late)
    for name, what in _user_code(stage, config):
        found[name] = Read(reference=name, path=source_file(name, what=what), stage=None)
    everything = [asdict(config) if config else {}, dict(stage.options)]
    strange = Counter(references.within(everything)) - Counter(text for text, _, _ in stated)
    if strange:
        raise ConfigError(f"{', '.join(sorted(strange))}: stands where no model and no data are read")
    return tuple(found.values())


def _paths(stage: Stage, config: Config | None) -> Iterator[tuple[str, str, bool]]:
    """(path or reference, what it must be, whether it may be a name on the hub) of all that is read."""
    for option, wanted in (("model", "model"), ("data", "data"), ("against", "data")):
        value = stage.options.get(option, [])
        values = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for each in values:
            yield each, wanted, stage.kind == "eval" and wanted == "data"
    if config is None:
        return
    uses = KINDS[stage.kind].sections
    if "model" in uses:
        yield config.model.path, "model", False
    data = config.data
    for source in (
        [*data.train, *data.evaluation, *(data.decontaminate_against if data.decontaminate else [])]
        if "data" in uses
        else []
    ):
        if source.kind != "synthetic" and source.path:
            yield source.path, "data", source.kind == "hf"
    for reward in config.rewards if "rewards" in uses else []:
        if isinstance(path := reward.params.get("path"), str):
            yield path, "model", False


def _user_code(stage: Stage, config: Config | None) -> Iterator[tuple[str, str]]:
    """(`module:name`, what it is) of all user-defined code: its source is an input of the stage."""
    if config is None:
        return
    uses = KINDS[stage.kind].sections
    for reward in config.rewards if "rewards" in uses else []:
        if ":" in reward.name:
            yield reward.name, "the reward"
    if "algorithm" in uses:
        for key, path in (("loss", config.algorithm.loss), ("advantage", config.algorithm.advantage)):
            if ":" in path:
                yield path, f"algorithm.{key}"
    for source in [*config.data.train, *config.data.evaluation] if "data" in uses else []:
        if source.kind == "synthetic" and source.path and is_user_defined(source.path):
            yield source.path, "the task"


def _late_paths(stage: Stage, config: Config | None) -> list[tuple[str, str, bool]]:
    """The same of what is read only when all samples are there."""
    if config is None or "curation" not in KINDS[stage.kind].sections:
        return []
    return [(general.path, "data", general.kind == "hf") for general in config.curation.general]


def _meaning(config: Config, kind: Kind) -> dict[str, Any]:
    """The values of the sections that decide what comes out, where they differ from the defaults: key -> value.

    Those that only say how fast and where a run goes are left out, so that changing them leaves a finished stage finished; so are
    defaults, so that a new key does not make all stages new ones.
    """
    flat: dict[str, Any] = {}

    def note(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                note(f"{key}.{name}", inner)
        elif key.startswith(DECIDES) or not may_change(key):
            flat[key] = value

    for section in kind.sections:
        note(section, _stated(getattr(config, section)))
    return flat


def _stated(value: Any) -> Any:
    """A dataclass as a map of the values that differ from its defaults; anything else as it is."""
    if isinstance(value, list | tuple):
        return [_stated(v) for v in value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return {f.name: _stated(v) for f in fields(value) if (v := getattr(value, f.name)) != _default(f)}


def _default(f: Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not MISSING else f.default


def _listed(value: Any) -> Any:
    """With lists in place of tuples, which YAML does not have."""
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    return [_listed(v) for v in value] if isinstance(value, list | tuple) else value
