"""Make a reward's dataclass from its parameters in the configuration, with errors that name the fix."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from r1ray.config.keys import expected_of
from r1ray.errors import ConfigError
from r1ray.util.hints import suggestion

Made = TypeVar("Made")


def make(cls: type[Made], params: Mapping[str, Any], owner: str, **given: Any) -> Made:
    """Make an instance of the dataclass `cls` from `params`.

    `owner` names the reward in messages; `given` are fields that are not parameters. Raises
    ConfigError for a parameter that is unknown, missing, of another type, or that `cls` itself
    refuses.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key, value in params.items():
        if key not in fields:
            raise ConfigError(f"{owner} has no parameter {key!r}{suggestion(key, fields)}; it takes {_listed(fields)}")
        if not _fits(value, hints[key]):
            raise ConfigError(f"{owner}: {key}: expected {expected_of(hints[key])}, got {value!r}")
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in params:
            raise ConfigError(f"{owner} needs the parameter {key} ({expected_of(hints[key])})")
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in params.items()}, **given)


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) if names else "none"


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in args
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        sized = args[-1] is Ellipsis or (isinstance(value, list | tuple) and len(value) == len(args))
        return isinstance(value, list | tuple) and sized and all(_fits(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(_fits(v, args[1]) for v in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
