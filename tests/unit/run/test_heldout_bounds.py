"""Held-out rewards against their bounds."""

from __future__ import annotations

from typing import Any

import pytest

from r1ray.config.load import load_config
from r1ray.errors import ConfigError
from r1ray.run.heldout_bounds import heldout_falls


def row(step: int, fluency: float | None, *, source: str = "bus", error: float = 0.03) -> dict[str, Any]:
    measured = {} if fluency is None else {"parts": {"fluency": fluency}, "parts_se": {"fluency": error}}
    return {"step": step, "source": source, "accuracy": 0.5, **measured}


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (-1.60, "fell by 0.09 (standard error 0.05), from -1.51 to -1.60 with policy 6: within the bound of 0.25"),
        (-1.77, "fell by 0.26 (standard error 0.05), from -1.51 to -1.77 with policy 6: beyond the bound of 0.25"),
        (-1.40, "rose by 0.11 (standard error 0.05), from -1.51 to -1.40 with policy 6: within the bound of 0.25"),
    ],
)
def test_a_fall_is_a_sentence_with_a_verdict(end: float, words: str) -> None:
    rows = [row(0, -1.51), row(3, -9.0), row(6, end, error=0.04)]
    (fall,) = heldout_falls(rows, {"fluency": 0.25})
    assert fall.text == f"Held-out fluency on bus {words}"
    assert fall.within == ("within" in words)


def test_each_source_that_measures_the_reward_has_a_sentence() -> None:
    rows = [row(0, -1.0), row(0, -2.0, source="b"), row(0, None, source="c"), row(4, -2.0, source="b"), row(4, -1.1)]
    assert [fall.source for fall in heldout_falls(rows, {"fluency": 0.1})] == ["bus", "b"]
    assert list(heldout_falls(rows, {"model": 0.1})) == []


@pytest.mark.parametrize("rows", [[], [row(0, -1.0)], [row(2, -1.0), row(4, -3.0)], [row(0, None), row(4, -3.0)]])
def test_without_figures_of_the_start_and_of_a_later_policy_nothing_is_said(rows: list[dict[str, Any]]) -> None:
    assert list(heldout_falls(rows, {"fluency": 0.1})) == []


def test_a_bound_on_what_no_evaluation_measures_is_refused() -> None:
    assert load_config(["models/smollm2-135m"], []).config.hacking_monitor.max_heldout_fall == {"fluency": 0.25}
    for name in ("fluent", "accuracy"):
        with pytest.raises(
            ConfigError, match=rf"max_heldout_fall.*names {name}, but data\.evaluation .*use some of fluency"
        ):
            load_config(["models/smollm2-135m"], [f"hacking_monitor.max_heldout_fall={{{name}: 0.25}}"])
    with pytest.raises(ConfigError, match=r"max_heldout_fall.*>= 0"):
        load_config(["models/smollm2-135m"], ["hacking_monitor.max_heldout_fall={fluency: -0.25}"])
