"""HTML and SVG elements, tables, and the page around them.

Anything that is not `Markup` is text, and text is always escaped:
node("p", "a < b", class_="note") == '<p class="note">a &lt; b</p>'
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from importlib.resources import files

from r1ray.util.formatting import duration, share

_VOID = frozenset({"meta", "br", "line", "path", "circle", "rect", "polygon", "input"})


class Markup(str):
    """A string that is markup and needs no escaping. Only `node`, `join`, `escape` and `trusted` make one."""

    __slots__ = ()


def trusted(text: str) -> Markup:
    """Return `text` as markup, unescaped.

    Only for the page's own style sheet, script and data, never for text of a run.
    """
    return Markup(text)


def escape(value: object) -> Markup:
    """Return markup unchanged and anything else as escaped text."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Concatenate the parts; parts that are not markup are escaped."""
    return Markup(between.join(escape(part) for part in parts))


def node(tag: str, *children: object, **attributes: object) -> Markup:
    """Return one element. `class_` becomes `class`, `stroke_width` `stroke-width`; None and False omit an attribute."""
    text = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{text}/>")
    return Markup(f"<{tag}{text}>{join(c for c in children if c is not None)}</{tag}>")


Cell = str | Markup


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, texts: int = 1) -> Markup:
    """Return a table with a head.

    The first `texts` columns are text, the others numbers. It scrolls on narrow pages.
    """
    titles = [node("th", title, scope="col", class_=None if i < texts else "n") for i, title in enumerate(head)]
    lines = [node("tr", *(_cell(i, value, texts) for i, value in enumerate(row))) for row in rows]
    whole = node("table", node("thead", node("tr", *titles)), node("tbody", *lines), class_="data", data_copy=True)
    return copyable(node("div", whole, class_="scroll"))


def copyable(*tables: Markup) -> Markup:
    """Return tables with buttons that copy all of them together. Tables without a head have names and values."""
    buttons = [
        node("button", f"Copy as {label}", type="button", data_format=key)
        for key, label in (("markdown", "Markdown"), ("csv", "CSV"))
    ]
    return node("div", node("div", *buttons, class_="bar"), *tables, class_="copyable")


def section(title: str, lead: str, *parts: Markup | None) -> Markup:
    """Return a section: heading, introduction, and its parts."""
    return node("section", node("h2", title), node("p", lead, class_="sub"), *parts)


def meter(value: float | None) -> Markup | str:
    """Return a share in [0, 1] as a percentage with a bar; a dash for None."""
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
    """Return a duration as text; a dash for None."""
    return "–" if seconds is None else duration(seconds)


def _cell(column: int, value: Cell, texts: int) -> Markup:
    if column == 0:
        return node("th", value, scope="row")
    return node("td", value, class_=None if column < texts else "n")


def page(title: str, body: Sequence[Markup | None], chart_data: Markup) -> str:
    """Return the complete page. It loads nothing, and its security policy allows only its own script.

    `chart_data`: the element of `ChartBook.data`.
    """
    style, script = (_asset(name) for name in ("style.css", "script.js"))
    # The policy allows only the script with this hash: text that escaped the escaping still cannot run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", http_equiv="Content-Security-Policy", content=policy),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("title", title),
        node("style", style),
    )
    content = node("body", *body, chart_data, node("script", script))
    return "<!doctype html>\n" + node("html", head, content, lang="en") + "\n"


def _asset(name: str) -> Markup:
    return trusted(files("r1ray.report").joinpath(name).read_text(encoding="utf-8"))
