"""Merge base.yaml, overlays and command-line overrides into one typed, checked Config.

    conf/base.yaml -> extends of overlay 1 -> overlay 1 -> overlay 2 ... -> key=value ...

Later sources win; maps merge, lists are replaced. Values are literals: no interpolation, no resolvers.
Every leaf is set by itself, so that each problem found can name its key and the line that set it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1ray.config.checks import Use, check
from r1ray.config.problems import Problem, Provenance, refuse
from r1ray.config.schema import Config
from r1ray.config.sources import Source, read_in_order
from r1ray.errors import ConfigError
from r1ray.util.hints import closest

COMMAND_LINE = "command line"
_Origin = Callable[[str], str]  # dotted key -> where this source sets it


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A checked configuration and where its values came from. Producer: `load_config`. Consumers: CLI, launch."""

    config: Config
    provenance: Provenance
    sources: tuple[str, ...]  # the files, in the order they were applied

    def to_yaml(self) -> str:
        """The resolved configuration; `load_config` of it alone gives the same Config."""
        return OmegaConf.to_yaml(OmegaConf.structured(self.config))


def load_config(overlays: Sequence[str], overrides: Sequence[str] = (), use: Use = "train") -> LoadedConfig:
    """The configuration of `overlays` (paths, or names under conf/) and `overrides` ("key=value") over conf/base.yaml.

    `use` is the command that it is for. Raises ConfigError that lists every problem found, each with its key, value,
    origin and what would be right.
    """
    return load_sources(read_in_order(overlays), overrides, use)


def load_sources(files: Sequence[Source], overrides: Sequence[str] = (), use: Use = "train") -> LoadedConfig:
    """As `load_config`, of files that are read already: all of them, conf/base.yaml as well, in the order they apply."""
    merge = _Merge()
    for source in files:
        merge.section("", Config, source.content, source.origin)
    for text in overrides:
        merge.override(text)
    refuse([*merge.problems, *_missing(merge)], merge.provenance)
    config = OmegaConf.to_object(merge.cfg)
    assert isinstance(config, Config)
    refuse(check(config, use), merge.provenance)
    return LoadedConfig(config=config, provenance=merge.provenance, sources=tuple(s.name for s in files))


@functools.cache
def _defaults() -> DictConfig:
    """The schema with its defaults; making it takes six times as long as copying it."""
    made: DictConfig = OmegaConf.structured(Config)
    return made


@dataclass
class _Merge:
    """Sets leaves one after another and collects what cannot be set."""

    cfg: DictConfig = field(default_factory=lambda: copy.deepcopy(_defaults()))
    provenance: Provenance = field(default_factory=Provenance)
    problems: list[Problem] = field(default_factory=list)

    def section(self, key: str, cls: Any, value: Any, origin: _Origin) -> None:
        """Set the keys of the map `value` in the section `key` (""; the root), whose dataclass is `cls`."""
        hints = get_type_hints(cls)
        if not isinstance(value, dict):
            self._problem(key, value, "is a section, not a value", f"its keys are {', '.join(hints)}", origin)
            return
        for name, inner in value.items():
            full = f"{key}.{name}" if key else str(name)
            if name in hints:
                self.set(full, hints[name], inner, origin)
            else:
                self._problem(full, inner, "no such key", _nearest(key, str(name), hints), origin)

    def set(self, key: str, hint: Any, value: Any, origin: _Origin) -> None:
        """Set `key`, which the schema types as `hint`: a section, a list of sections, or a leaf."""
        if is_dataclass(hint):
            self.section(key, hint, value, origin)
        elif (item := _entry(hint)) is not None:
            if not isinstance(value, list):
                self._problem(key, value, "is a list of sections", f"write {key}: [{{...}}]", origin)
                return
            OmegaConf.update(self.cfg, key, [item() for _ in value], merge=False)
            self._forget(key)
            self.provenance[key] = origin(key)
            for i, inner in enumerate(value):
                self.section(f"{key}.{i}", item, inner, origin)
        else:
            self._leaf(key, hint, value, origin)

    def override(self, text: str) -> None:
        """Set what `text`, "dotted.key=value" with the value in YAML, asks for."""
        key, equals, raw = text.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{text!r} is neither a configuration file nor key=value; see conf/base.yaml for the keys"
            )
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]), resolve=False)
        except (yaml.YAMLError, OmegaConfBaseException) as e:
            raise ConfigError(f"{key}: the value {raw!r} on the command line is not YAML: {e}") from e
        assert isinstance(value, dict)
        hint = self._hint(key, value["value"])
        if hint is not None:
            self.set(key, hint, value["value"], lambda _: COMMAND_LINE)

    def _hint(self, key: str, value: Any) -> Any:
        """The type that the schema gives `key`; None, and a problem noted, where there is no such key."""
        hint: Any = Config
        parts = key.split(".")
        for i, part in enumerate(parts):
            above = ".".join(parts[:i])
            if is_dataclass(hint):
                hints = get_type_hints(hint)
                if part not in hints:
                    self._problem(
                        key, value, f"no such key: {part}", _nearest(above, part, hints), lambda _: COMMAND_LINE
                    )
                    return None
                hint = hints[part]
            elif (item := _entry(hint)) is not None:
                count = len(OmegaConf.select(self.cfg, above))
                if not part.isdigit() or int(part) >= count:
                    fix = f"{above} has {count} entries, numbered from 0"
                    self._problem(key, value, f"no such entry: {part}", fix, lambda _: COMMAND_LINE)
                    return None
                hint = item
            elif get_origin(hint) is dict:
                hint = get_args(hint)[1]
            elif hint is not Any:
                self._problem(key, value, f"{above} is a value, it has no keys", f"set {above}", lambda _: COMMAND_LINE)
                return None
        return hint

    def _leaf(self, key: str, hint: Any, value: Any, origin: _Origin) -> None:
        if "${" in str(value):
            self._problem(key, value, "values are literals, ${...} is not replaced", "write the value itself", origin)
            return
        try:
            OmegaConf.update(self.cfg, key, value)
        except (OmegaConfBaseException, TypeError, ValueError):
            # OmegaConf's own texts name its node classes; the type in the schema says it better.
            self._problem(key, value, f"is not {describe(hint)}", f"give {describe(hint)}", origin)
        else:
            self.provenance[key] = origin(key)

    def _problem(self, key: str, value: Any, message: str, fix: str, origin: _Origin) -> None:
        self.provenance[key] = origin(key)
        self.problems.append(Problem(key=key, value=value, message=message, fix=fix))

    def _forget(self, key: str) -> None:
        for old in [k for k in self.provenance if k.startswith(f"{key}.")]:
            del self.provenance[old]


def _entry(hint: Any) -> type | None:
    """The dataclass of the entries where `hint` is a list of sections, else None."""
    if get_origin(hint) is list and isinstance(item := get_args(hint)[0], type) and is_dataclass(item):
        return item
    return None


def describe(hint: Any) -> str:
    """A type of the schema in words: `int | None` -> "a whole number or null"."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if hint in names:
        return names[hint]
    kind, args = get_origin(hint), get_args(hint)
    if kind is list:
        return f"a list (each {describe(args[0])})"
    if kind is dict:
        return "a map" if args[1] is Any else f"a map (each value {describe(args[1])})"
    if kind is tuple:
        return f"a list of {len(args)} (each {describe(args[0])})"
    return " or ".join(describe(a) for a in args) if args else "a value"


def _nearest(section: str, name: str, hints: Iterable[str]) -> str:
    prefix = f"{section}." if section else ""
    elsewhere = [key for key in all_keys() if key.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    if found := closest(name, hints):
        return f"did you mean {prefix}{found}?"
    return f"{section or 'the top level'} has {', '.join(hints)}"


def all_keys(cls: Any = Config, prefix: str = "") -> list[str]:
    """Every leaf key of the schema, dotted; lists of sections count as one leaf."""
    keys: list[str] = []
    for name, hint in get_type_hints(cls).items():
        keys += all_keys(hint, f"{prefix}{name}.") if is_dataclass(hint) else [prefix + name]
    return keys


def _missing(merge: _Merge) -> list[Problem]:
    tried = {p.key for p in merge.problems}
    missing = sorted(key.replace("[", ".").replace("]", "") for key in OmegaConf.missing_keys(merge.cfg))
    return [
        Problem(key=key, value="???", message="has no default and was not set", fix=f"set {key}, e.g. {key}=...")
        for key in missing
        if key not in tried
    ]
