"""Charts: axes, gaps, thinning."""

import math
import re

import pytest

from r1ray.report.charts import Chart, Frame, Series, draw, rolling, thin, tick_labels, ticks
from r1ray.util.formatting import number, share

FRAME = Frame(width=146, height=136, last_step=10, left=36, right=10, upper=10, lower=26)  # a plot of 100 x 100


def chart(*points, **settings):
    series = Series(name="a", points=points)
    return Chart(title="T", note="n", show=number, **{"series": (series,), **settings})


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 31.4, [0, 10, 20, 30, 40]),
        (-0.04, 0.05, [-0.05, -0.025, 0, 0.025, 0.05]),
        (0, 3e-4, [0, 1e-4, 2e-4, 3e-4]),
    ],
)
def test_ticks_are_round_and_cover_the_values(low, high, expected):
    assert ticks(low, high, 4) == pytest.approx(expected)


@pytest.mark.parametrize(("last", "expected"), [(1, [0, 1]), (3, [0, 1, 2, 3]), (40, [0, 10, 20, 30, 40])])
def test_steps_are_integers(last, expected):
    assert ticks(0, last, 4, integers=True) == expected


def test_the_labels_of_an_axis_have_equal_decimals():
    assert tick_labels([0, 0.5, 1.0, 1.5], number) == ["0", "0.5", "1.0", "1.5"]
    assert tick_labels([0, 2000, 4000], number) == ["0", "2,000", "4,000"]
    assert tick_labels([0, 0.25, 1], share) == ["0%", "25%", "100%"]
    assert tick_labels([0, 1e-4], number) == ["0", "0.0001"]


def test_a_line_has_the_coordinates_of_its_values():
    svg = draw(chart((0, 0.0), (5, 1.0), (10, 0.5), top=1.0), FRAME)
    assert 'd="M36 110L86 10L136 60"' in svg


def test_a_value_that_is_not_finite_breaks_the_line():
    svg = draw(chart((0, 1.0), (5, math.nan), (10, 1.0), top=1.0), FRAME)
    assert 'd="M36 10M136 10"' in svg
    assert "nan" not in svg


def test_the_axis_includes_zero_unless_disabled():
    points = ((0, 1.001), (10, 0.999))
    assert ">0<" in draw(chart(*points), FRAME)
    assert re.findall(r">(0\.9\d+|1\.0\d+)</text>", draw(chart(*points, zero=False), FRAME))[0] == "0.999"


def test_a_band_spans_value_and_error():
    series = Series(name="a", points=((0, 0.5), (10, 0.5)), errors=(0.25, 0.25))
    svg = draw(Chart(title="T", note="n", show=share, series=(series,), top=1.0), FRAME)
    assert 'points="36,35 136,35 136,85 36,85"' in svg


def test_long_series_are_thinned_to_means_and_smoothed():
    points = [(float(i), float(i % 2)) for i in range(1000)]
    thinned = thin(points, 100)
    assert len(thinned) == 100
    assert {y for _, y in thinned} == {0.5}
    assert all(abs(y - 0.5) < 0.2 for _, y in rolling(points)[20:-20])
    assert draw(chart(*points), FRAME).count("<path") == 2  # raw values and their mean
