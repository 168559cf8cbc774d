"""HTML and SVG as values: what is not made here is text, and text is always escaped.

node("p", "a < b", class_="note") == '<p class="note">a &lt; b</p>'
"""

from __future__ import annotations

import html
from collections.abc import Iterable

_VOID = frozenset({"meta", "br", "line", "path", "circle", "rect", "polygon", "input"})


class Markup(str):
    """A string that is markup already. Only `node`, `join` and `trusted` make one."""

    __slots__ = ()


def trusted(text: str) -> Markup:
    """`text` as markup, unescaped: for the page's own style sheet and script, never for anything out of a run."""
    return Markup(text)


def escape(value: object) -> Markup:
    """Markup as it is, anything else as escaped text."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """The parts one after another, each escaped where it is text."""
    return Markup(between.join(escape(part) for part in parts))


def node(tag: str, *children: object, **attributes: object) -> Markup:
    """One element. `class_` becomes `class`, `stroke_width` `stroke-width`; None and False leave an attribute out."""
    text = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Markup(f"<{tag}{text}/>")
    return Markup(f"<{tag}{text}>{join(c for c in children if c is not None)}</{tag}>")
