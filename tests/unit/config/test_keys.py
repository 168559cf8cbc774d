"""What the schema says about keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
import yaml

from r1ray.config.annotations import Doc, Importable, NonEmpty, Range
from r1ray.config.keys import Key, keys_of, leaf_keys, section_doc
from r1ray.config.schema import Config, SourceConfig


def everything(section: type = Config, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """All keys of the schema, those of list entries as well."""
    for name, key in keys_of(section).items():
        yield prefix + name, key
        inner = key.section or key.entry
        if inner is not None:
            yield from everything(inner, f"{prefix}{name}.")


ALL = dict(everything())


def test_every_key_is_documented() -> None:
    assert [path for path, key in ALL.items() if key.section is None and len(key.doc) < 8] == []
    assert [path for path, key in ALL.items() if key.section and len(section_doc(key.section)) < 20] == []


def test_every_number_has_a_range() -> None:
    numeric = (int, float, int | None, float | None, dict[str, int], dict[str, float], tuple[float, float])
    assert [path for path, key in ALL.items() if key.hint in numeric and key.range is None] == []
    assert [path for path, key in ALL.items() if key.range is not None and key.hint not in numeric] == []


def test_every_default_is_allowed_and_described() -> None:
    assert [path for path, key in ALL.items() if key.default != "???" and not key.allows(key.default)] == []
    assert [path for path, key in ALL.items() if key.section is None and key.expected == "a value"] == []


def test_choices_are_strings_without_quotes_in_yaml() -> None:
    words = [word for key in ALL.values() for word in key.choices]
    assert words == [yaml.safe_load(word) for word in words]  # `off` would be false


@dataclass
class Example:
    """An example."""

    whole: Annotated[int | None, Range(ge=1, le=5), Doc("d")] = None
    share: Annotated[float, Range(gt=0, lt=1), Doc("d")] = 0.5
    shares: Annotated[dict[str, float], Range(ge=0), Doc("d")] = field(default_factory=dict)
    any_number: Annotated[float, Range(), Doc("d")] = 0.0
    word: Annotated[Literal["a", "b"] | None, Doc("d")] = None
    function: Annotated[str, Importable(("f", "g")), Doc("d")] = "f"
    name: Annotated[str, NonEmpty(), Doc("d")] = "n"
    names: Annotated[list[str] | None, Doc("d")] = None
    free: Annotated[dict[str, Any], Doc("d")] = field(default_factory=dict)
    flag: Annotated[bool, Doc("d")] = True


@pytest.mark.parametrize(
    ("name", "expected", "allowed", "refused"),
    [
        ("whole", "an integer >= 1 and <= 5 or null", [1, 5, None], [0, 6]),
        ("share", "a number > 0 and < 1", [0.001, 0.999], [0, 1, float("nan")]),
        ("shares", "a map of numbers >= 0", [{}, {"x": 0}], [{"x": 1, "y": -1}, {"x": float("inf")}]),
        ("any_number", "a finite number", [-1e300], [float("nan"), float("-inf")]),
        ("word", "one of a, b or null", ["a", None], ["c", ""]),
        ("function", "one of f, g, or module:function", ["g", "m:f"], ["h", ""]),
        ("name", "a string that is not empty", ["x"], ["", " "]),
        ("names", "a list of strings or null", [[], ["x"], None], []),
        ("free", "a map", [{"x": [1, None, True]}], []),
        ("flag", "true or false", [True, False], []),
    ],
)
def test_what_is_expected_and_what_is_allowed(
    name: str, expected: str, allowed: list[object], refused: list[object]
) -> None:
    key = keys_of(Example)[name]
    assert key.expected == expected
    assert [value for value in allowed if not key.allows(value)] == []
    assert [value for value in refused if key.allows(value)] == []


def test_values_of_a_free_map_have_a_key_of_their_own() -> None:
    share, free = keys_of(Example)["shares"].item, keys_of(Example)["free"].item
    assert share is not None
    assert (share.expected, share.allows(-1.0)) == ("a number >= 0", False)
    assert free is not None
    assert free.item is not None
    assert keys_of(Example)["whole"].item is None


def test_paths_lead_to_keys() -> None:
    keys = dict(leaf_keys())
    assert keys["learner.optimizer.schedule"].choices == ("constant", "linear", "cosine")
    assert keys["data.train"].entry is SourceConfig
    assert list(keys)[:2] == ["run.name", "run.dir"]
