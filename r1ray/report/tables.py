"""Tables of a page, with buttons that copy them as Markdown or CSV."""

from __future__ import annotations

from collections.abc import Sequence

from r1ray.report.markup import Markup, join, node
from r1ray.util.formatting import duration, share

Cell = str | Markup


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, texts: int = 1) -> Markup:
    """A table with a head; the first `texts` columns are text, the others figures. It scrolls where the page is narrow."""
    titles = [node("th", title, scope="col", class_=None if i < texts else "n") for i, title in enumerate(head)]
    lines = [node("tr", *(_cell(i, value, texts) for i, value in enumerate(row))) for row in rows]
    whole = node("table", node("thead", node("tr", *titles)), node("tbody", *lines), class_="data", data_copy=True)
    return copyable(node("div", whole, class_="scroll"))


def copyable(*tables: Markup) -> Markup:
    """Tables that are copied as one, with the buttons above them. Those without a head are of figures and values."""
    buttons = [
        node("button", f"Copy as {label}", type="button", data_format=key)
        for key, label in (("markdown", "Markdown"), ("csv", "CSV"))
    ]
    return node("div", node("div", *buttons, class_="bar"), *tables, class_="copyable")


def section(title: str, lead: str, *parts: Markup | None) -> Markup:
    """A heading, what it is about, and the rest."""
    return node("section", node("h2", title), node("p", lead, class_="sub"), *parts)


def meter(value: float | None) -> Markup | str:
    """A share with a bar as long as it."""
    if value is None:
        return "–"
    width = f"{100 * min(max(value, 0.0), 1.0):.1f}"
    bars = [
        node("rect", width="100", height="6", rx="3", class_="rest"),
        node("rect", width=width, height="6", rx="3", class_="part"),
    ]
    drawing = node("svg", *bars, viewBox="0 0 100 6", class_="meter", aria_hidden="true", preserveAspectRatio="none")
    return join([drawing, node("span", share(value))])


def wall_time(seconds: float | None) -> str:
    """A dash before the end."""
    return "–" if seconds is None else duration(seconds)


def _cell(column: int, value: Cell, texts: int) -> Markup:
    if column == 0:
        return node("th", value, scope="row")
    return node("td", value, class_=None if column < texts else "n")
