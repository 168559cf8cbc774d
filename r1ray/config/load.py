"""Merge base.yaml, overlays and command-line overrides into one typed, checked Config.

    conf/base.yaml -> extends of overlay 1 -> overlay 1 -> overlay 2 ... -> key=value ...

Later sources win; maps merge, lists are replaced. Values are literals: no interpolation, no resolvers.
Every leaf is set separately, so that each problem can name its key and the line that set it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1ray.config.checks import check
from r1ray.config.keys import Key, key_of_section, keys_of, leaf_keys
from r1ray.config.problems import Problem, Provenance, refuse, value_at
from r1ray.config.schema import Config
from r1ray.config.sources import Source, read_in_order
from r1ray.config.uses import Use
from r1ray.config.values import MISSING, WrongType, convert, merged, missing, to_yaml
from r1ray.errors import ConfigError
from r1ray.util.hints import closest

COMMAND_LINE = "command line"
_Origin = Callable[[str], str]  # dotted key -> where the source sets it


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedConfig:
    """A checked configuration and where its values came from. Producer: `load_config`. Consumers: CLI, launch."""

    config: Config
    provenance: Provenance
    sources: tuple[str, ...]  # the files, in the order they were applied

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, which `load_config` reads as the same Config."""
        return to_yaml(self.config)


def load_config(overlays: Sequence[str], overrides: Sequence[str] = (), use: Use = "train") -> LoadedConfig:
    """Load conf/base.yaml, `overlays` (paths, or names under conf/) and `overrides` ("key=value").

    `use` is the command that the configuration is for. Raises ConfigError with all problems, each with its origin.
    """
    return load_sources(read_in_order(overlays), overrides, use)


def load_sources(files: Sequence[Source], overrides: Sequence[str] = (), use: Use = "train") -> LoadedConfig:
    """Load files that were read already, in the order they apply and conf/base.yaml among them. See `load_config`."""
    merge = _Merge()
    for source in files:
        merge.section("", Config, source.content, source.origin)
    for text in overrides:
        merge.override(text)
    refuse([*merge.problems, *_missing(merge)], merge.provenance)
    refuse(check(merge.config, use), merge.provenance)
    return LoadedConfig(config=merge.config, provenance=merge.provenance, sources=tuple(s.name for s in files))


@dataclass(frozen=True, slots=True)
class _Place:
    """A key by its path: a leaf, or one value inside a map with free keys."""

    leaf: str
    leaf_key: Key
    inner: str  # path inside the map; empty: the leaf itself
    key: Key


@dataclass
class _Merge:
    """Set one leaf after another and collect the problems."""

    config: Config = field(default_factory=Config)
    provenance: Provenance = field(default_factory=Provenance)
    found: dict[str, Problem] = field(default_factory=dict)  # by key; a later source may correct an earlier one

    @property
    def problems(self) -> list[Problem]:
        """The problems that remain after all sources."""
        return list(self.found.values())

    def section(self, path: str, cls: type, value: Any, origin: _Origin) -> None:
        """Set the keys of the map `value` in the section at `path` (""; the root), whose dataclass is `cls`."""
        keys = keys_of(cls)
        if not isinstance(value, dict):
            self._problem(path, value, "expected a section, not a value", f"its keys are {', '.join(keys)}", origin)
            return
        for name, inner in value.items():
            full = f"{path}.{name}" if path else str(name)
            if name in keys:
                self.set(full, keys[name], inner, origin)
            else:
                self._problem(full, inner, "no such key", _nearest(path, str(name), keys), origin)

    def set(self, path: str, key: Key, value: Any, origin: _Origin) -> None:
        """Set `path`, which the schema describes as `key`: a section, a list of sections, or a leaf."""
        if key.section is not None:
            self.section(path, key.section, value, origin)
        elif (entry := key.entry) is not None:
            if not isinstance(value, list):
                self._problem(path, value, f"expected {key.expected}", f"write {path}: [{{...}}]", origin)
                return
            self._put(path, [entry() for _ in value])
            self._forget(path)
            self.provenance[path] = origin(path)
            for i, inner in enumerate(value):
                self.section(f"{path}.{i}", entry, inner, origin)
        else:
            self._leaf(_Place(path, key, "", key), value, origin)

    def override(self, text: str) -> None:
        """Set the key of `text`, "dotted.key=value" with the value in YAML."""
        path, equals, raw = text.partition("=")
        if not equals or not path:
            raise ConfigError(
                f"{text!r} is neither a configuration file nor key=value; see conf/base.yaml for the keys"
            )
        try:
            value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]), resolve=False)
        except (yaml.YAMLError, OmegaConfBaseException) as e:
            raise ConfigError(f"{path}: the value {raw!r} on the command line is not YAML: {e}") from e
        assert isinstance(value, dict)
        place = self._find(path, value["value"])
        if place is not None and place.inner:
            self._leaf(place, value["value"], _from_command_line)
        elif place is not None:
            self.set(path, place.key, value["value"], _from_command_line)

    def _find(self, path: str, value: Any) -> _Place | None:
        """Return the key at `path`, in which numbers are list indices. Without one, add a problem and return None."""
        key: Key = key_of_section(Config)
        leaf: tuple[str, Key, str] | None = None
        parts = path.split(".")
        for i, part in enumerate(parts):
            above = ".".join(parts[:i])
            if key.section is not None:
                keys = keys_of(key.section)
                if part not in keys:
                    fix = _nearest(above, part, keys)
                    self._problem(path, value, f"no such key: {part}", fix, _from_command_line)
                    return None
                key = keys[part]
            elif key.entry is not None:
                count = len(value_at(self.config, above))
                if not part.isdigit() or int(part) >= count:
                    fix = f"{above} has {count} entries, numbered from 0"
                    self._problem(path, value, f"no such entry: {part}", fix, _from_command_line)
                    return None
                key = key_of_section(key.entry)
            elif key.item is not None:
                leaf = leaf or (above, key, ".".join(parts[i:]))
                key = key.item
            else:
                message = f"{above} is a value and has no keys"
                self._problem(path, value, message, f"set {above}", _from_command_line)
                return None
        return _Place(*(leaf or (path, key, "")), key)

    def _leaf(self, place: _Place, value: Any, origin: _Origin) -> None:
        path = f"{place.leaf}.{place.inner}" if place.inner else place.leaf
        if "${" in str(value):
            message = "values are literals, and ${...} is not replaced"
            self._problem(path, value, message, "write the value itself", origin)
            return
        old = value_at(self.config, place.leaf)
        try:
            new = convert(place.leaf_key.hint, value, old, place.inner)
        except WrongType:  # OmegaConf's own messages name its node classes; Key.expected says it better
            fits = False
            if not place.inner and isinstance(old, dict) and isinstance(value, dict):
                value = merged(old, value)
                self._put(path, value)  # a later source may correct only what is wrong in it
        else:
            fits = place.key.allows(new.part)
            self._put(place.leaf, new.whole)
        if fits:
            self.provenance[path] = origin(path)
            self.found.pop(path, None)
        else:
            self._problem(path, value, f"expected {place.key.expected}", None, origin)

    def _put(self, path: str, value: Any) -> None:
        above, _, name = path.rpartition(".")
        setattr(value_at(self.config, above) if above else self.config, name, value)

    def _problem(self, path: str, value: Any, message: str, fix: str | None, origin: _Origin) -> None:
        self.provenance[path] = origin(path)
        self.found[path] = Problem(key=path, value=value, message=message, fix=fix)

    def _forget(self, path: str) -> None:
        """Drop the provenance and the problems of a list that is replaced, and of its entries."""
        for known in (self.provenance, self.found):
            for old in [k for k in known if k == path or k.startswith(f"{path}.")]:
                del known[old]


def _from_command_line(_: str) -> str:
    return COMMAND_LINE


def _nearest(section: str, name: str, names: Iterable[str]) -> str:
    prefix = f"{section}." if section else ""
    elsewhere = [path for path, _ in leaf_keys() if path.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    if found := closest(name, names):
        return f"did you mean {prefix}{found}?"
    return f"{section or 'the top level'} has {', '.join(names)}"


def _missing(merge: _Merge) -> list[Problem]:
    return [
        Problem(key=key, value=MISSING, message="has no default and is not set", fix=f"set it, e.g. {key}=...")
        for key in missing(merge.config)
        if not any(key == other or key.startswith(f"{other}.") for other in merge.found)
    ]
