"""The keys of the configuration as the schema declares them: type, default, range, choices and documentation."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from r1ray.config.annotations import Doc, Importable, NonEmpty, Range
from r1ray.config.schema import Config

_SINGULAR = {int: "an integer", float: "a number", bool: "true or false", str: "a string", NoneType: "null"}
_PLURAL = {int: "integers", float: "numbers", bool: "booleans", str: "strings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One field of a section. Producer: `keys_of`. Consumers: `load`, `base_yaml`."""

    hint: Any  # the type without annotations
    default: Any
    doc: str
    range: Range | None  # of a number, or of every number in a list or a map
    choices: tuple[str, ...]  # empty: any value of the type
    importable: bool  # `module:function` is accepted besides the choices
    non_empty: bool

    @property
    def section(self) -> type | None:
        """The dataclass if the field is a section."""
        return self.hint if isinstance(self.hint, type) and is_dataclass(self.hint) else None

    @property
    def entry(self) -> type | None:
        """The dataclass of the entries if the field is a list of sections."""
        item = get_args(self.hint)[0] if get_origin(self.hint) is list else None
        return item if isinstance(item, type) and is_dataclass(item) else None

    @property
    def item(self) -> Key | None:
        """The key of one value if the field is a map with free keys, else None."""
        if get_origin(self.hint) is dict:
            return _key(get_args(self.hint)[1], None, (self.range,))
        return _key(Any, None, ()) if self.hint is Any else None

    @property
    def expected(self) -> str:
        """What a value must be, in words: "an integer >= 1", "one of requeue, drop"."""
        kinds = [hint for hint in _alternatives(self.hint) if hint is not NoneType]
        if self.choices:
            text = f"one of {', '.join(self.choices)}" + (", or module:function" if self.importable else "")
        elif kinds == [str] and self.non_empty:
            text = "a string that is not empty"
        else:
            text = " or ".join(_described(hint, self.range) for hint in kinds)
        return f"{text} or null" if NoneType in _alternatives(self.hint) else text

    def allows(self, value: Any) -> bool:
        """Whether `value`, which is of the type already, is also within the range and among the choices."""
        if isinstance(value, Mapping):
            return all(self.allows(inner) for inner in value.values())
        if isinstance(value, list | tuple):
            return all(self.allows(inner) for inner in value)
        if isinstance(value, str):
            chosen = not self.choices or value in self.choices or (self.importable and ":" in value)
            return chosen and bool(value.strip() or not self.non_empty)
        if self.range is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return math.isfinite(value) and self.range.holds(value)
        return True


@functools.cache
def keys_of(section: type) -> Mapping[str, Key]:
    """Name -> Key of each field of a section's dataclass, in the order of the schema."""
    hints = get_type_hints(section, include_extras=True)
    return MappingProxyType({f.name: _key(hints[f.name], _default(f), ()) for f in fields(section)})


def key_of_section(section: type) -> Key:
    """A Key for the section itself: the root, or one entry of a list of sections."""
    return _key(section, None, ())


def leaf_keys(section: type = Config, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Every key that takes a value, with its dotted path; a list of sections is one leaf."""
    for name, key in keys_of(section).items():
        if key.section is not None:
            yield from leaf_keys(key.section, f"{prefix}{name}.")
        else:
            yield prefix + name, key


def expected_of(hint: Any) -> str:
    """What a value of this type must be, in words; see `Key.expected`."""
    return _key(hint, None, ()).expected


def section_doc(section: type) -> str:
    """The first line of a section's docstring."""
    return (section.__doc__ or "").strip().splitlines()[0]


def _key(hint: Any, default: Any, inherited: tuple[Any, ...]) -> Key:
    notes: tuple[Any, ...] = inherited
    if get_origin(hint) is Annotated:
        hint, *own = get_args(hint)
        notes = (*inherited, *own)
    found: dict[type, Any] = {type(note): note for note in notes}
    importable: Importable | None = found.get(Importable)
    named = [get_args(part) for part in _alternatives(hint) if get_origin(part) is Literal]
    doc: Doc | None = found.get(Doc)
    return Key(
        hint=hint,
        default=default,
        doc=doc.text if doc else "",
        range=found.get(Range),
        choices=importable.names if importable else named[0] if named else (),
        importable=importable is not None,
        non_empty=NonEmpty in found,
    )


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _described(hint: Any, bounds: Range | None) -> str:
    within = f" {bounds}" if bounds is not None and str(bounds) else ""
    if hint in _SINGULAR:
        finite = hint is float and not within
        return "a finite number" if finite else _SINGULAR[hint] + within
    kind, args = get_origin(hint), get_args(hint)
    if kind is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"a list of {count}{_PLURAL[args[0]]}{within}"
    if kind is list:
        return f"a list of {'sections' if is_dataclass(args[0]) else _PLURAL[args[0]]}{within}"
    if kind is dict:
        return "a map" if args[1] is Any else f"a map of {_PLURAL[args[1]]}{within}"
    return "a value"
