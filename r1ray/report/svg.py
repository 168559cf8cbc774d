"""Line charts as SVG that takes its colours and type from the page, so one drawing serves light and dark.

All charts of a report share one x axis (training steps), and a y axis begins at zero unless a chart says otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from r1ray.report.markup import Markup, node
from r1ray.util.formatting import share

Point = tuple[float, float]

MAX_POINTS = 400
"""More than a screen can show apart: longer series are averaged into so many bins."""

SMOOTH_FROM = 80
"""Points from which on a line is drawn as a rolling mean over its pale raw course."""


MOST_DOTS = 12
"""Dots that stand apart from each other on a small chart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    points: tuple[Point, ...]  # (step, value) by step; a value that is not finite leaves a gap
    colour: int = 1  # 1 to 6: the page's palette
    dashed: bool = False
    marked: bool = False  # measured now and then, such as evaluations: a dot on every point, where they stand apart
    errors: tuple[float, ...] = ()  # half-widths of the band around `points`, one each

    @property
    def finite(self) -> list[Point]:
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A titled drawing of some series."""

    title: str
    note: str  # the unit, or what is shown, in a few words
    series: tuple[Series, ...]
    show: Callable[[float], str]  # how a value reads
    top: float | None = None  # the highest value of the y axis, where it is known
    zero: bool = True  # the y axis includes zero
    marks: tuple[float, ...] = ()  # steps at which something else begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Size in user units, the gutters around the plot, and the domain of x."""

    width: float
    height: float
    last_step: float
    left: float = 46
    right: float = 8
    upper: float = 8
    lower: float = 28

    def x(self, step: float) -> float:
        return self.left + (self.width - self.left - self.right) * step / max(self.last_step, 1)

    def y(self, value: float, low: float, high: float) -> float:
        return self.height - self.lower - (self.height - self.lower - self.upper) * (value - low) / (high - low)


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round values (1, 2, 2.5 or 5 times a power of ten) that cover [low, high], ends included."""
    span = high - low or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / count))
    steps = [m * magnitude for m in (1, 2, 2.5, 5, 10, 20)]
    step = next(s for s in steps if span / s <= count + 1e-9)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points, each the mean of its share of the finite ones."""
    if len(points) <= most:
        return list(points)
    edges = [i * len(points) // most for i in range(most + 1)]
    shares = [[p for p in points[a:b] if math.isfinite(p[1])] for a, b in itertools.pairwise(edges)]
    return [(fmean(x for x, _ in share), fmean(y for _, y in share)) for share in shares if share]


def rolling(points: Sequence[Point]) -> list[Point]:
    """The centred mean over a twenty-fifth of the points."""
    half = max(1, len(points) // 50)
    out = []
    for i, (x, y) in enumerate(points):
        near = [v for _, v in points[max(0, i - half) : i + half + 1] if math.isfinite(v)]
        out.append((x, fmean(near) if near and math.isfinite(y) else y))
    return out


def draw(chart: Chart, frame: Frame) -> Markup:
    """The chart as one `<svg>` element."""
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
    """The labels of one axis, all with the same number of decimals; `show` decides where that would be too many."""
    if show is share:
        return [f"{100 * value:g}%" for value in grid]
    decimals = next((d for d in range(4) if all(abs(v - round(v, d)) < 1e-9 for v in grid)), None)
    if decimals is None:
        return [show(value) for value in grid]
    return [f"{value:,.{decimals}f}" if value else "0" for value in grid]


def _x_axis(frame: Frame) -> list[Markup]:
    fit = [t for t in ticks(0, frame.last_step, max(2, round(frame.width / 80)), whole=True) if t <= frame.last_step]
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
    """Straight pieces, broken where a value is not finite."""
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
