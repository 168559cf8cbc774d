"""The guard of quick ratios: bounds, the second measurement, and what it prints."""

from __future__ import annotations

import pytest

from benchmarks import measure
from benchmarks.guard import Guard, check


def guard(*values: float, least: float | None = None, most: float | None = None) -> Guard:
    """Measures these values one after the other."""
    left = iter(values)
    return Guard(
        measured=lambda: {"ours / bare": measure.summarise([next(left)])}, bounds={"ours / bare": (least, most)}
    )


def test_a_ratio_within_its_bounds_is_measured_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert check([guard(1.0, least=0.5, most=2.0)]) == []
    assert capsys.readouterr().out.startswith("ours / bare: 1.000 (1.000 to 1.000)\n")


def test_noise_has_a_second_chance(capsys: pytest.CaptureFixture[str]) -> None:
    assert check([guard(0.1, 1.0, least=0.5)]) == []
    assert "measured again: ours / bare: expected at least 0.5, got 0.100" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        ({"least": 3.5}, "ours / bare: expected at least 3.5, got 3.000 (3.000 to 3.000)"),
        ({"most": 2.5}, "ours / bare: expected at most 2.5, got 3.000 (3.000 to 3.000)"),
    ],
)
def test_a_regression_fails_by_name(bound: dict[str, float], text: str) -> None:
    assert check([guard(3.0, 3.0, **bound)]) == [text]
