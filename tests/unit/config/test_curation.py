"""Section `curation`: what `r1ray sample` refuses before it starts."""

from __future__ import annotations

import pytest

from r1ray.config.load import load_config
from r1ray.errors import ConfigError

LIMIT = "data.train.0.limit=10"
GENERAL = "curation.general=[{name: chat, path: chat.jsonl}]"
ENDPOINT = "curation.refine={url: 'http://127.0.0.1:1/v1', model: m}"


def test_every_key_of_the_section_is_read() -> None:
    config = load_config(
        ["tiny"],
        [
            LIMIT,
            "curation.quality=[{part: format, at_least: 1.0, sources: [bus]}]",
            "curation.style=r1_zero",
            "curation.language=English",
            "curation.quotas={bus: 3}",
            GENERAL,
            ENDPOINT,
        ],
        use="sample",
    ).config
    assert config.curation.correct[0].part == "accuracy"
    assert config.curation.general[0].kind == "jsonl"
    assert config.curation.refine.retries == 3


@pytest.mark.parametrize(
    ("overrides", "key", "reason"),
    [
        (["data.train.0.limit=null"], "data.train.0.limit", "has no end"),
        (["data.train.0.split=test"], "data.train.0.split", "not a split of a synthetic task"),
        (["data.train.0.weight=2"], "data.train.0.weight", "samples every prompt once"),
        (["rollout.max_new_tokens=200"], "model.max_length", "at least 264"),
        (["curation.correct.0.part=judge"], "curation.correct.0.part", "not measured on bus"),
        (["data.train.0.rewards=[format]"], "curation.correct.0.part", "not measured on bus"),
        (["curation.correct.0.at_least=.nan"], "curation.correct.0.at_least", "a finite number"),
        (["curation.correct.0.sources=[tram]"], "curation.correct.0.sources", "names tram"),
        (["curation.style=xml"], "curation.style", "one of r1_zero, think"),
        (["curation.language=klingon"], "curation.language", "one of en"),
        (["curation.min_tokens=9", "curation.max_tokens=8"], "curation.max_tokens", "at least 9"),
        (["curation.format=think_summary", "curation.summary=Done."], "curation.summary", "has no {answer}"),
        (["curation.quotas={bus: -1}"], "curation.quotas", "a map of integers >= 0"),
        (["curation.refine.url=localhost:8000"], "curation.refine.url", "begin it with http"),
        (["curation.refine.url=http://127.0.0.1:1/v1"], "curation.refine.model", "is empty"),
        ([ENDPOINT, "curation.refine.template=Nicer."], "curation.refine.template", "has no {response}"),
        ([ENDPOINT, "curation.correct=[]"], "curation.correct", "checked again"),
        ([GENERAL, "curation.general.0.kind=synthetic"], "curation.general.0.kind", "one of jsonl"),
        ([GENERAL, "curation.general.0.name=bus"], "curation.general.0.name", "is the name of another source"),
        ([GENERAL, "curation.general.0.limit=0"], "curation.general.0.limit", "an integer >= 1 or null"),
        ([GENERAL, "curation.general.0.params={suffix: x}"], "curation.general.0.params", "unknown parameters: suffix"),
    ],
)
def test_impossible_settings_are_refused_by_their_key(overrides: list[str], key: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(["tiny"], [LIMIT, *overrides], use="sample")
    about = [
        line.strip() for line in str(caught.value).splitlines() if line.strip().startswith((f"{key} = ", f"{key}: "))
    ]
    assert len(about) == 1, str(caught.value)
    assert reason in about[0]


def test_a_part_may_be_the_kind_of_a_reward() -> None:
    rewards = "rewards=[{name: accuracy/task, params: {verifier: task}}, {name: format}]"
    assert load_config(["tiny"], [LIMIT, rewards], use="sample").config.curation.correct[0].part == "accuracy"
