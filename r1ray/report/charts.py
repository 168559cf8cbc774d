"""Charts as figures of the page: caption, legend with the newest values, drawing, and what the cursor reads."""

from __future__ import annotations

import json
import math

from r1ray.report.markup import Markup, join, node, trusted
from r1ray.report.svg import Chart, Frame, Series, draw, thin


class ChartBook:
    """The charts of one page. All share the x axis [0, last_step]."""

    def __init__(self, last_step: int) -> None:
        self._last_step = last_step
        self._panels: list[list[list[tuple[float, str]]]] = []  # [chart][series][point]: (step, value as read)

    def small(self, chart: Chart) -> Markup:
        """One of a grid of small multiples."""
        drawing = draw(chart, Frame(width=340, height=184, last_step=self._last_step))
        return node("figure", _caption(chart), drawing, class_="panel", data_chart=self._add(chart))

    def large(self, chart: Chart) -> Markup:
        """A chart as wide as the page, drawn twice so that its type stays readable on a phone."""
        wide = draw(chart, Frame(width=1080, height=350, last_step=self._last_step))
        narrow = draw(chart, Frame(width=360, height=230, last_step=self._last_step))
        drawings = (node("div", wide, class_="wide"), node("div", narrow, class_="narrow"))
        return node("figure", _caption(chart), *drawings, class_="panel hero", data_chart=self._add(chart))

    def data(self) -> Markup:
        """What the cursor reads, as an inert script element."""
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
