"""YAML that every reader takes for the same values."""

from __future__ import annotations

import pytest
import yaml
from omegaconf import OmegaConf

from r1ray.config.sources import CONF_DIR
from r1ray.util.yaml_text import read_yaml, write_yaml

TEXTS = ["1e3", "1", "-1.5", ".5", "nan", "inf", ".inf", "1_000", "0x1", "yes", "n", "off", "null", "~", "", "a: b"]
TEXTS += ["#c", "a\nb", "é", "- x", "2026-01-01", "12:30", "<<", "=", "x" * 300, "word " * 60, "{a}", "*a", "'", '"']


def test_what_is_written_reads_as_the_same_to_each_reader() -> None:
    value = {
        "texts": TEXTS,
        **{text: text for text in TEXTS if text not in ("<<", "=")},
        "numbers": [1, 1.5, 1e-6, True],
    }
    text = write_yaml(value)
    assert read_yaml(text) == yaml.safe_load(text) == value
    assert OmegaConf.to_container(OmegaConf.create(text)) == value


def test_tuples_are_lists_and_what_stands_twice_is_written_twice() -> None:
    inner = [1, 2]
    text = write_yaml({"b": inner, "a": inner, "c": (3, 4)})
    assert "&" not in text
    assert list(read_yaml(text).items()) == [("b", [1, 2]), ("a", [1, 2]), ("c", [3, 4])]


@pytest.mark.parametrize("name", ["base.yaml", "tiny.yaml", "recipes/r1.yaml"])
def test_a_shipped_file_reads_as_by_pyyaml(name: str) -> None:
    text = (CONF_DIR / name).read_text(encoding="utf-8")
    assert read_yaml(text) == yaml.safe_load(text)


def test_code_is_not_run() -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml("!!python/object/apply:os.getcwd []")
