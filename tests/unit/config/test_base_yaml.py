"""conf/base.yaml against the schema that it is generated from."""

from __future__ import annotations

import re
from dataclasses import asdict

import yaml

from r1ray.config.base_yaml import PATH, generate
from r1ray.config.keys import leaf_keys
from r1ray.config.schema import Config
from r1ray.config.sources import read_file


def test_the_file_is_what_the_schema_generates() -> None:
    assert PATH.read_text(encoding="utf-8") == generate(), "run `make config`"


def test_the_file_has_every_key_with_its_default() -> None:
    source, extends = read_file(PATH)
    default = asdict(Config())
    default["learner"]["optimizer"]["betas"] = list(default["learner"]["optimizer"]["betas"])  # YAML has no tuples
    assert (source.content, extends) == (default, [])
    assert set(dict(leaf_keys())) <= set(source.lines)


def test_the_text_is_plain_yaml_of_readable_width() -> None:
    lines = generate().splitlines()
    assert [line for line in lines if len(line) > 100] == []
    assert "\N{NO-BREAK SPACE}" not in generate()
    assert yaml.safe_load(generate())["curation"]["correct"] == [{"part": "accuracy", "at_least": 1.0, "sources": None}]


def test_comments_give_choices_range_and_entries() -> None:
    text = re.sub(r"\n *# ", " ", generate())
    assert "digest: full" in text
    assert "full | wire | none: what is compared" in text
    assert "ranks: 1  # training processes (>= 1)" in text
    assert "grpo | dr_grpo | dapo | gspo | cispo | module:function: policy loss" in text
    assert "  #   weight: 1.0  # share in the mixture, relative to the other sources (> 0)" in generate()
    assert "sources of evaluation problems; entries have the keys of data.train" in text
