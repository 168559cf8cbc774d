"""Conversion of a value from YAML to the type of its key, by the rules of OmegaConf.

OmegaConf costs a millisecond for each value that it holds, so it converts only what is not of the type already.
"""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass, make_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1ray.config.keys import keys_of
from r1ray.config.schema import Config
from r1ray.util.yaml_text import write_yaml

MISSING = "???"
"""The default of a key that has none, and the value that unsets a key."""


class WrongType(Exception):
    """The value is not of the key's type."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A value of its key's type. Producer: `convert`. Consumer: `load`."""

    whole: Any  # of the leaf
    part: Any  # what was set: the leaf, or one value inside it


def convert(hint: Any, new: Any, old: Any = None, inner: str = "") -> Converted:
    """Return `new` as a value of the type `hint`. Maps merge into the map `old`.

    `inner` is the dotted path of one value inside the map `old`, which `new` replaces. Raises WrongType.
    """
    if not inner and _is_plain(hint, new):
        return Converted(new, None if new == MISSING else new)
    if not inner and isinstance(new, dict) and isinstance(old, dict):
        new = merged(old, new)
    if not inner and (found := _plain_container(hint, new)) is not None:
        return Converted(found, found)
    leaf = OmegaConf.structured(_leaf_class(hint))
    try:
        if inner:
            OmegaConf.update(leaf, "value", old, merge=False)
        path = f"value.{inner}" if inner else "value"
        OmegaConf.update(leaf, path, new, merge=bool(inner))
        part = OmegaConf.select(leaf, path)
    except (OmegaConfBaseException, TypeError, ValueError, OverflowError) as e:
        raise WrongType from e
    whole = OmegaConf.to_container(leaf)
    assert isinstance(whole, dict)
    return Converted(whole["value"], OmegaConf.to_container(part) if OmegaConf.is_config(part) else part)


def merged(old: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
    """Return `old` with the values of `new`; maps inside merge too, lists are replaced."""
    both = {
        key: merged(old[key], value) if isinstance(value, dict) and isinstance(old.get(key), dict) else value
        for key, value in new.items()
    }
    return {**old, **both}


def missing(config: Config) -> list[str]:
    """Return the dotted keys of all values that are not set, in order of the alphabet."""
    return sorted(_missing(config, ""))


def to_yaml(config: Config) -> str:
    """Return `config` as YAML, which reads as the same configuration."""
    return write_yaml(asdict(config), default_flow_style=False)


def _missing(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if value == MISSING:
            yield path
        return
    inner: Any = ()
    if is_dataclass(value):
        inner = ((name, getattr(value, name)) for name in keys_of(value.__class__))
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    for name, item in inner:
        yield from _missing(item, f"{path}.{name}" if path else str(name))


@functools.cache
def _leaf_class(hint: Any) -> type:
    return make_dataclass("_Leaf", [("value", hint)])


def _is_plain(hint: Any, value: Any) -> bool:
    """Whether OmegaConf would take `value` for a key of this type as it is; False if that is uncertain."""
    kind = type(value)
    kinds, choices = _plain(hint)
    if kind is not str:
        return kind in kinds
    return value == MISSING or value in choices or (str in kinds and not value.endswith(MISSING))


def _plain_container(hint: Any, value: Any) -> Any:
    """Return a copy of `value`, a list or a map, if OmegaConf would make that of it; None if that is uncertain."""
    kind = type(value)
    if kind is dict and get_origin(hint) is dict and (not value or (hint == dict[str, Any] and _is_json(value))):
        return copy.deepcopy(value)
    if kind is list and hint in (list[str], list[str] | None) and all(_is_plain(str, item) for item in value):
        return list(value)
    if kind is list and hint == tuple[float, float] and [type(item) for item in value] == [float, float]:
        return tuple(value)
    return None


def _is_json(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_json(inner) for key, inner in value.items())
    if kind is list:
        return all(map(_is_json, value))
    return kind in (bool, int, float, type(None)) or (kind is str and _is_plain(str, value))


@functools.cache
def _plain(hint: Any) -> tuple[frozenset[type], frozenset[str]]:
    """Return the plain types among the alternatives of `hint`, and the strings that a Literal among them allows."""
    alternatives = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    choices = [choice for part in alternatives if get_origin(part) is Literal for choice in get_args(part)]
    return frozenset({bool, int, float, str, type(None)} & set(alternatives)), frozenset(choices)
