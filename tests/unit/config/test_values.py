"""Values become the types of their keys exactly as OmegaConf would convert them."""

from __future__ import annotations

from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r1ray.config.keys import Key, keys_of, leaf_keys
from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.config.sources import read_file
from r1ray.config.values import MISSING, WrongType, convert, missing, to_yaml
from r1ray.errors import ConfigError

VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        -3,
        2**70,
        10**400,
        1.0,
        0.5,
        1e3,
        float("inf"),
        "",
        "a",
        "1",
        "1.5",
        "1e3",
        "true",
        "no",
    ),
    *("none", "auto", "cpu", "null", "\\", r"\d", MISSING, "a ???", r"\???", "[1]"),
    *([], [1], [0.5, 1], ["a", 1], [None], [[1]], [{"a": 1}], {}, {"a": 1}, {"a": 0.5}, {"a": "x"}, {"a": None}),
    *(
        {1: 2},
        {"a": {"b": [1, "c"]}},
        {"a.b": 1},
        {"a": {2: 1}},
        {"a": MISSING},
        {"a": [{"b": r"\???"}]},
        {"a": (1, 2)},
    ),
    *([0.5, 0.25], [0.5, 0.25, 1.0], ["a", "b"], ["a", MISSING], ["a", r"\???"], [0.5, True], {"a": {1.5, 2}}),
)


def every_key() -> list[Key]:
    """The keys of all sections, those of list entries included, but not the lists of sections."""
    keys = [key for _, key in leaf_keys()]
    entries = {key.entry for key in keys if key.entry is not None}
    return [key for key in [*keys, *(k for e in entries for k in keys_of(e).values())] if key.entry is None]


HINTS = {str(key.hint): key.hint for key in every_key()}


def of_omegaconf(hint: Any, value: Any) -> str:
    """What OmegaConf makes of `value`."""
    leaf = OmegaConf.structured(make_dataclass("Leaf", [("value", hint)]))
    try:
        OmegaConf.update(leaf, "value", value, merge=False)
    except (OmegaConfBaseException, TypeError, ValueError, OverflowError):
        return "refused"
    return repr(OmegaConf.to_container(leaf)["value"])  # type: ignore[call-overload, index]


@pytest.mark.parametrize("name", sorted(HINTS))
def test_every_value_becomes_what_omegaconf_makes_of_it(name: str) -> None:
    for value in VALUES:
        try:
            found = repr(convert(HINTS[name], value, {} if name.startswith("dict") else None).whole)
        except WrongType:
            found = "refused"
        assert found == of_omegaconf(HINTS[name], value), (name, value)


def test_defaults_are_of_their_type() -> None:
    for key in every_key():
        assert repr(convert(key.hint, key.default).whole) == repr(key.default), key


def test_maps_merge_and_a_value_inside_is_replaced() -> None:
    old = {"x": {"y": 1, "z": [1]}}
    assert convert(dict[str, Any], {"x": {"z": [2]}, "w": None}, old).whole == {"x": {"y": 1, "z": [2]}, "w": None}
    assert convert(dict[str, float], "2", {"x": 1.0}, "y").whole == {"x": 1.0, "y": 2.0}
    assert convert(dict[str, float], "2", {"x": 1.0}, "y").part == 2.0
    assert old == {"x": {"y": 1, "z": [1]}}


def test_a_later_source_corrects_one_value_of_a_map_and_keeps_the_others(tmp_path: Path) -> None:
    overlay = tmp_path / "o.yaml"
    overlay.write_text("extends: [tiny]\ncuration: {quotas: {a: 3, b: many}}\n")
    assert load_config([str(overlay)], ["curation.quotas={b: 4}"]).config.curation.quotas == {"a": 3, "b": 4}
    with pytest.raises(
        ConfigError, match=r"curation\.quotas: expected a map of integers >= 0, got .*many.* \(command line\)"
    ):
        load_config([str(overlay)], ["curation.quotas={c: 4}"])


def test_missing_values_are_named_wherever_they_are() -> None:
    overrides = ["run.steps=???", "rewards.0.params.x=[1, '???']", "data.train.0.params={y: {z: '???'}}"]
    with pytest.raises(ConfigError) as caught:
        load_config(["tiny"], overrides)
    for key in ("run.steps", "rewards.0.params.x.1", "data.train.0.params.y.z"):
        assert f"{key} = '???'" in str(caught.value)
    assert missing(Config()) == ["model.path"]


def test_a_file_that_was_read_is_the_same_whatever_was_done_to_its_content(tmp_path: Path) -> None:
    path = tmp_path / "o.yaml"
    path.write_text("a: {b: [1]}\n")
    first, _ = read_file(path)
    first.content["a"]["b"].append(2)
    assert read_file(path)[0].content == {"a": {"b": [1]}}
    path.write_text("a: {b: [3]}\n")
    assert read_file(path)[0].content == {"a": {"b": [3]}}


TEXTS = (
    "1e3",
    "1",
    "-1.5",
    ".5",
    "nan",
    ".inf",
    "1_000",
    "yes",
    "n",
    "null",
    "~",
    "",
    "a: b",
    "#c",
    "a\nb",
    "é",
    "- x",
)


def test_yaml_is_that_of_omegaconf_and_reads_as_the_same() -> None:
    config = load_config(["tiny"]).config
    config.rewards[0].params = {text: [text, {text: text}] for text in TEXTS}
    text = to_yaml(config)
    assert OmegaConf.create(text) == OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(config)))
    assert OmegaConf.to_container(OmegaConf.create(text))["rewards"][0]["params"] == config.rewards[0].params  # type: ignore[call-overload, index]


@pytest.mark.parametrize("overlay", ["tiny", "models/qwen2.5-7b"])
def test_yaml_of_a_shipped_overlay_is_omegaconfs_to_the_byte(overlay: str) -> None:
    config = load_config([overlay]).config
    assert to_yaml(config) == OmegaConf.to_yaml(OmegaConf.structured(config))
