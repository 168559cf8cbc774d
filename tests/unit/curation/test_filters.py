"""Each filter drops what it is for and nothing else; the first in the order gives the reason."""

from __future__ import annotations

from typing import Any

import pytest

from r1ray.config.schema import CurationConfig, ThresholdConfig
from r1ray.curation.filters import FILTERS, READABILITY, first_reason
from r1ray.errors import ConfigError
from tests.unit.curation_support import candidate

MIXED = "<think>The sum of 7 and 5 is wanted. 我们先把七和五加起来，然后得到十二。</think> <answer>12</answer>"
LOOP = f"<think>{'so we add them up again and again and ' * 20}</think> <answer>12</answer>"
ONE_PARAGRAPH = "<think>" + "word " * 41 + "\n\nnext</think> <answer>12</answer>"
JUDGED = {"accuracy": 1.0, "judge": 0.7}
CODE = "<think>Let me run it.\n```python\nprint(7 + 5)\n```\n</think> <answer>12</answer>"


@pytest.mark.parametrize(
    ("reason", "given", "dropped", "kept"),
    [
        ("error", {}, {"error": "VerifierTimeout: accuracy", "reward": None, "parts": {}}, {}),
        ("incorrect", {}, {"parts": {"accuracy": 0.5}}, {"parts": {"accuracy": 1.0}}),
        ("truncated", {}, {"finish_reason": "length"}, {}),
        ("truncated", {}, {"finish_reason": "abort"}, {}),
        ("format", {"style": "r1_zero"}, {"response": "<think>x</think> 12"}, {}),
        ("format", {"style": "think"}, {"response": "12"}, {"response": "<think>x</think> 12"}),
        ("language_unknown", {"min_language": 0.9}, {"messages": ({"role": "user", "content": "7+5"},)}, {}),
        ("language", {"min_language": 0.9}, {"response": MIXED}, {}),
        ("language", {"min_language": 0.9, "language": "zh"}, {}, {"response": "<think>七加五</think>12"}),
        ("language", {"min_language": 0.9}, {"meta": {"target_language": "Chinese"}}, {}),
        ("repetition", {"max_repetition": 0.5}, {"response": LOOP}, {}),
        ("too_short", {"min_tokens": 20}, {"tokens": 19}, {"tokens": 20}),
        ("too_long", {"max_tokens": 20}, {"tokens": 21}, {"tokens": 20}),
        ("long_paragraph", {"max_paragraph_words": 40}, {"response": ONE_PARAGRAPH}, {}),
        ("code_block", {"drop_code_blocks": True}, {"response": CODE}, {"response": "<think>`x`</think>\n```\n1\n```"}),
        ("low_quality", {"quality": [("judge", 0.7)]}, {"parts": JUDGED | {"judge": 0.6}}, {"parts": JUDGED}),
        ("unconvertible", {"format": "think_summary"}, {"response": "12"}, {}),
    ],
)  # fmt: skip
def test_a_filter_drops_what_it_is_for(reason: str, given: dict, dropped: dict, kept: dict) -> None:
    given = {
        key: [ThresholdConfig(part=p, at_least=x) for p, x in v] if key == "quality" else v for key, v in given.items()
    }
    chosen = CurationConfig(**given)
    assert first_reason(candidate(**dropped), chosen) == reason
    assert first_reason(candidate(**kept), chosen) is None
    if given:
        assert first_reason(candidate(**dropped), CurationConfig()) is None  # off by default


def test_the_first_reason_counts() -> None:
    every = CurationConfig(style="r1_zero", min_tokens=50, max_repetition=0.1)
    assert first_reason(candidate(LOOP, finish_reason="length", parts={"accuracy": 0.0}), every) == "incorrect"
    assert first_reason(candidate(LOOP, finish_reason="length"), every) == "truncated"
    assert first_reason(candidate(LOOP), every) == "repetition"
    assert first_reason(candidate(LOOP), every, ["too_short"]) == "too_short"
    assert set(READABILITY) <= set(FILTERS)


def test_thinking_of_formulas_alone_mixes_no_languages() -> None:
    plain = candidate("<think>7+5=12</think> <answer>12</answer>")
    assert first_reason(plain, CurationConfig(min_language=0.9)) is None


def test_the_opening_tag_of_the_prompt_belongs_to_the_response() -> None:
    opened = candidate("7+5</think> 12", meta={"opening": "<think>\n"})
    assert opened.text == "<think>\n7+5</think> 12"
    assert opened.thinking.strip() == "7+5"
    assert first_reason(opened, CurationConfig(style="think")) is None


@pytest.mark.parametrize(
    ("thresholds", "fields", "right"),
    [
        ([("reward", 1.5)], {"reward": 1.4}, False),
        ([("reward", 1.5)], {"reward": 1.5}, True),
        ([("accuracy", 1.0)], {"parts": {"accuracy/code": 1.0, "format": 0.0}}, True),
        ([("accuracy/code", 1.0)], {"parts": {"accuracy/code": 0.0, "accuracy/math": 1.0}}, False),
        ([("accuracy", 1.0), ("format", 1.0)], {"parts": {"accuracy": 1.0, "format": 0.0}}, False),
        ([], {"parts": {}}, True),
    ],
)
def test_what_is_right_is_a_matter_of_thresholds(thresholds: list, fields: dict[str, Any], right: bool) -> None:
    chosen = CurationConfig(correct=[ThresholdConfig(part=part, at_least=least) for part, least in thresholds])
    assert (first_reason(candidate(**fields), chosen) is None) == right


def test_a_threshold_may_be_for_some_sources() -> None:
    chosen = CurationConfig(correct=[ThresholdConfig(part="accuracy", sources=["other"])])
    assert first_reason(candidate(parts={"accuracy": 0.0}), chosen) is None
    assert first_reason(candidate(parts={"accuracy": 0.0}, source="other"), chosen) == "incorrect"


def test_a_threshold_on_what_was_not_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the samples of sums have no part 'accuracy' \(they have format\)"):
        first_reason(candidate(parts={"format": 1.0}), CurationConfig())
