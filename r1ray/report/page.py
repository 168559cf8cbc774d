"""The shell of a page: style, script and content security policy, all inside it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from r1ray.report.charts import ChartBook
from r1ray.report.markup import Markup, node, trusted


def page(title: str, body: Sequence[Markup | None], book: ChartBook) -> str:
    """The page as text: nothing in it is fetched, and only its own script runs."""
    style, script = (_asset(name) for name in ("style.css", "script.js"))
    # The policy names this very script, so a text that slipped through the escaping could still not run.
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
    content = node("body", *body, book.data(), node("script", script))
    return "<!doctype html>\n" + node("html", head, content, lang="en") + "\n"


def _asset(name: str) -> Markup:
    return trusted(files("r1ray.report").joinpath(name).read_text(encoding="utf-8"))
