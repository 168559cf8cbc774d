"""Line charts as SVG, and as figures of a page with caption, legend and cursor data.

A drawing takes its colours and fonts from the page, so one drawing serves light and dark mode. All
charts of a page share one x axis (training steps); a y axis includes zero unless a chart says otherwise.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from r1ray.report.html import Markup, join, node, trusted
from r1ray.util.formatting import share

Point = tuple[float, float]

MAX_POINTS = 400
"""Longer series are averaged into this many bins: a screen cannot resolve more points."""

SMOOTH_FROM = 80
"""Lines with at least this many points are drawn as a rolling mean over the raw values in a pale colour."""

MOST_DOTS = 12
"""Maximum number of dots that do not overlap on a small chart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[Point, ...]  # (step, value), ascending; a value that is not finite leaves a gap
    colour: int = 1  # 1 to 6: the page's palette
    dashed: bool = False
    marked: bool = False  # dots on the points, for sparse measurements such as evaluations
    errors: tuple[float, ...] = ()  # half-width of the band around each point; empty for no band

    @property
    def finite(self) -> list[Point]:
        """Points with a finite value."""
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A line chart with a title."""

    title: str
    note: str  # the unit, or a short description
    series: tuple[Series, ...]
    show: Callable[[float], str]  # formats a value
    top: float | None = None  # maximum of the y axis, if known
    zero: bool = True  # the y axis includes zero
    marks: tuple[float, ...] = ()  # steps with a vertical mark, such as the start of a stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Size of a drawing and its margins in user units, and the last step on the x axis."""

    width: float
    height: float
    last_step: float
    left: float = 46
    right: float = 8
    upper: float = 8
    lower: float = 28

    def x(self, step: float) -> float:
        """Return the x coordinate of a step."""
        return self.left + (self.width - self.left - self.right) * step / max(self.last_step, 1)

    def y(self, value: float, low: float, high: float) -> float:
        """Return the y coordinate of a value on an axis from `low` to `high`."""
        return self.height - self.lower - (self.height - self.lower - self.upper) * (value - low) / (high - low)


def ticks(low: float, high: float, count: int, *, integers: bool = False) -> list[float]:
    """Return about `count` round values (1, 2, 2.5 or 5 times a power of ten) that cover [low, high]."""
    span = high - low or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / count))
    steps = [m * magnitude for m in (1, 2, 2.5, 5, 10, 20)]
    step = next(s for s in steps if span / s <= count + 1e-9)
    if integers:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Return at most `most` points, each the mean of the finite points in its bin."""
    if len(points) <= most:
        return list(points)
    edges = [i * len(points) // most for i in range(most + 1)]
    shares = [[p for p in points[a:b] if math.isfinite(p[1])] for a, b in itertools.pairwise(edges)]
    return [(fmean(x for x, _ in share), fmean(y for _, y in share)) for share in shares if share]


def rolling(points: Sequence[Point]) -> list[Point]:
    """Return the centred rolling mean over 1/25 of the points."""
    half = max(1, len(points) // 50)
    out = []
    for i, (x, y) in enumerate(points):
        near = [v for _, v in points[max(0, i - half) : i + half + 1] if math.isfinite(v)]
        out.append((x, fmean(near) if near and math.isfinite(y) else y))
    return out


def draw(chart: Chart, frame: Frame) -> Markup:
    """Return the chart as one `<svg>` element."""
    grid = _y_ticks(chart)
    low, high = grid[0], grid[-1]
    parts: list[Markup] = []
    for value, label in zip(grid, tick_labels(grid, chart.show), strict=True):
        y = frame.y(value, low, high)
        base = value == 0 or value == low
        parts.append(_line(frame.left, y, frame.width - frame.right, y, "base" if base else "grid"))
        parts.append(node("text", label, x=0, y=_f(y + 4), class_="tick"))
    parts += [_line(frame.x(x), frame.upper, frame.x(x), frame.height - frame.lower, "mark") for x in chart.marks]
    parts += _x_axis(frame)
    for series in chart.series:
        parts += _draw_series(series, frame, low, high)
    parts.append(_line(0, frame.upper, 0, frame.height - frame.lower, "cursor"))
    return node(
        "svg",
        *parts,
        viewBox=f"0 0 {_f(frame.width)} {_f(frame.height)}",
        role="img",
        aria_label=f"{chart.title}: {chart.note}",
        data_left=_f(frame.left),
        data_right=_f(frame.width - frame.right),
        data_width=_f(frame.width),
    )


def _y_ticks(chart: Chart) -> list[float]:
    values = [y for series in chart.series for _, y in series.finite]
    for series in chart.series:
        values += [y + e for (_, y), e in zip(series.points, series.errors, strict=False) if math.isfinite(y + e)]
    low = min(0.0, *values) if chart.zero else min(values)
    high = chart.top if chart.top is not None and max(values) <= chart.top * 1.2 else max(values)
    return ticks(low, high if high > low else low + 1, 4)


def tick_labels(grid: Sequence[float], show: Callable[[float], str]) -> list[str]:
    """Return the labels of an axis, all with the same number of decimals;
    formatted by `show` if more than 3 are needed.
    """
    if show is share:
        return [f"{100 * value:g}%" for value in grid]
    decimals = next((d for d in range(4) if all(abs(v - round(v, d)) < 1e-9 for v in grid)), None)
    if decimals is None:
        return [show(value) for value in grid]
    return [f"{value:,.{decimals}f}" if value else "0" for value in grid]


def _x_axis(frame: Frame) -> list[Markup]:
    fit = [t for t in ticks(0, frame.last_step, max(2, round(frame.width / 80)), integers=True) if t <= frame.last_step]
    out = [node("text", "step", x=0, y=_f(frame.height - 6), class_="tick")]
    for tick in fit:
        anchor = "middle" if frame.x(tick) < frame.width - frame.right - 12 else "end"
        x, y = _f(frame.x(tick)), _f(frame.height - 6)
        out.append(node("text", f"{tick:,.0f}", x=x, y=y, class_="tick", text_anchor=anchor))
    return out


def _draw_series(series: Series, frame: Frame, low: float, high: float) -> list[Markup]:
    def place(points: Sequence[Point]) -> list[Point]:
        return [
            (frame.x(x), frame.y(min(max(y, low), high), low, high)) if math.isfinite(y) else (x, y) for x, y in points
        ]

    out: list[Markup] = []
    colour = f"s{series.colour}"
    if series.errors:
        out.append(_band(series, place, colour))
    points = thin(series.points)
    if len(points) >= SMOOTH_FROM:
        out.append(node("path", d=_path(place(points)), class_=f"line raw {colour}"))
        points = rolling(points)
    placed = place(points)
    out.append(node("path", d=_path(placed), class_=f"line {colour}{' dashed' if series.dashed else ''}"))
    dots = [p for p in placed if math.isfinite(p[1])]
    for x, y in dots if series.marked and len(dots) <= MOST_DOTS else dots[-1:]:
        out.append(node("circle", cx=_f(x), cy=_f(y), r="2.6", class_=f"dot {colour}"))
    return out


def _band(series: Series, place: Callable[[Sequence[Point]], list[Point]], colour: str) -> Markup:
    both = [(x, y, e) for (x, y), e in zip(series.points, series.errors, strict=True) if math.isfinite(y + e)]
    upper = place([(x, y + e) for x, y, e in both])
    lower = place([(x, y - e) for x, y, e in reversed(both)])
    return node("polygon", points=" ".join(f"{_f(x)},{_f(y)}" for x, y in upper + lower), class_=f"band {colour}")


def _path(points: Sequence[Point]) -> str:
    """Return an SVG path of straight segments, with gaps at values that are not finite."""
    out, pen_down = [], False
    for x, y in points:
        if math.isfinite(y):
            out.append(f"{'L' if pen_down else 'M'}{_f(x)} {_f(y)}")
        pen_down = math.isfinite(y)
    return "".join(out)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return node("line", x1=_f(x1), y1=_f(y1), x2=_f(x2), y2=_f(y2), class_=class_)


def _f(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class ChartBook:
    """The charts of one page, which share the x axis [0, last_step]."""

    def __init__(self, last_step: int) -> None:
        self._last_step = last_step
        self._panels: list[list[list[tuple[float, str]]]] = []  # [chart][series][point]: (step, formatted value)

    def small(self, chart: Chart) -> Markup:
        """Add a chart of the grid of small charts."""
        drawing = draw(chart, Frame(width=340, height=184, last_step=self._last_step))
        return node("figure", _caption(chart), drawing, class_="panel", data_chart=self._add(chart))

    def large(self, chart: Chart) -> Markup:
        """Add a chart as wide as the page. It is drawn twice so that its text stays readable on a phone."""
        wide = draw(chart, Frame(width=1080, height=350, last_step=self._last_step))
        narrow = draw(chart, Frame(width=360, height=230, last_step=self._last_step))
        drawings = (node("div", wide, class_="wide"), node("div", narrow, class_="narrow"))
        return node("figure", _caption(chart), *drawings, class_="panel hero", data_chart=self._add(chart))

    def data(self) -> Markup:
        """Return the data that the cursor reads, as an inert script element."""
        text = json.dumps({"last": self._last_step, "panels": self._panels}, ensure_ascii=False)
        return node("script", trusted(text.replace("<", "\\u003c")), type="application/json", id="series")

    def _add(self, chart: Chart) -> int:
        self._panels.append([[(x, chart.show(y)) for x, y in thin(_known(series))] for series in chart.series])
        return len(self._panels) - 1


def _known(series: Series) -> list[tuple[float, float]]:
    return [(x, y) for x, y in series.points if math.isfinite(y)]


def _caption(chart: Chart) -> Markup:
    keys = [
        node(
            "span",
            node("span", series.name),
            node("b", chart.show(_known(series)[-1][1])),
            class_=f"key s{series.colour}{' dashed' if series.dashed else ''}",
        )
        for series in chart.series
    ]
    note = node("span", chart.note, node("span", class_="at"), class_="note")
    gaps = sum(not math.isfinite(y) for series in chart.series for _, y in series.points)
    if gaps:
        warning = node("span", f"; {gaps} not finite", class_="warn")
        note = node("span", chart.note, warning, node("span", class_="at"), class_="note")
    return node("figcaption", node("h3", chart.title), note, node("div", join(keys), class_="keys"))
