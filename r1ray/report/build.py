"""One run folder in, one self-contained HTML page out: nothing in it is fetched, and nothing a model wrote can run.

page = header, held-out accuracy, four sections of small charts, responses, table of figures, facts, events
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from r1ray.files import write_atomic
from r1ray.formatting import number, share
from r1ray.report import sections
from r1ray.report.charts import ChartBook
from r1ray.report.figures import table
from r1ray.report.markup import Markup, join, node, trusted
from r1ray.report.panels import ANSWERS, SECTIONS, Section, accuracy_chart, chart, evaluated_chart, reflection_chart
from r1ray.report.record import RunRecord, load_record
from r1ray.report.story import header, name_of
from r1ray.report.svg import Chart
from r1ray.responses import REFLECTIVE_WORDS, ReflectiveWords
from r1ray.runfolder import RunFolder


def build_report(run_dir: Path, *, words: Sequence[str] = REFLECTIVE_WORDS) -> Path:
    """Write `report.html` into the run folder, whatever the state of the run, and return its path.

    `words` are the reflective words that are counted. Raises ConfigError where `run_dir` is not a run folder.
    """
    page = render(load_record(run_dir), words)
    path = RunFolder(run_dir).report
    write_atomic(path, page.encode("utf-8", "replace"))  # a lone surrogate, which UTF-8 lacks, becomes a question mark
    return path


def render(run: RunRecord, words: Sequence[str] = REFLECTIVE_WORDS) -> str:
    """The page as text."""
    figures = table(run)
    book = ChartBook(run.steps)
    body: list[Markup | None] = [header(run, {figure.key: figure for figure in figures})]
    if run.steps > 1:
        body += _charts(run, book, ReflectiveWords(words))
    elif run.metrics:
        body.append(sections.only_step(run))
    body.append(sections.samples(run))
    if run.metrics or run.evaluations:
        body.append(sections.table_of_figures(figures))
    body += [sections.facts(run), sections.events(run)]
    style, script = (_asset(name) for name in ("style.css", "script.js"))
    # The policy names this very script, so a text that slipped through the escaping could still not run.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", http_equiv="Content-Security-Policy", content=policy),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("title", f"{name_of(run)}: r1ray run report"),
        node("style", style),
    )
    content = node("body", *body, book.data(), node("script", script))
    return "<!doctype html>\n" + node("html", head, content, lang="en") + "\n"


def _charts(run: RunRecord, book: ChartBook, words: ReflectiveWords) -> list[Markup | None]:
    left_out: list[str] = []

    def keep(made: Chart | str, title: str) -> Chart | None:
        if isinstance(made, str):
            left_out.append(f"{title} ({made})")
            return None
        return made

    accuracy = keep(accuracy_chart(run), "Held-out accuracy")
    out: list[Markup | None] = [book.large(accuracy) if accuracy else None]
    for section in SECTIONS:
        charts = [keep(chart(panel, run), panel.title) for panel in section.panels]
        if section is ANSWERS:
            charts += [
                keep(evaluated_chart(run, key, title=title, note=note, show=show), title)
                for key, title, note, show in (
                    ("format", "Held-out format", "share in the asked form", share),
                    ("length", "Held-out length", "tokens, mean", number),
                )
            ]
            charts.append(keep(reflection_chart(run, words), "Reflective words"))
        out.append(_section(section, [book.small(c) for c in charts if c], left_out))
        left_out = []
    return out


def _section(section: Section, drawings: list[Markup], left_out: list[str]) -> Markup:
    note = node("p", f"Left out: {'; '.join(left_out)}.", class_="left-out") if left_out else None
    grid = node("div", join(drawings), class_="grid") if drawings else None
    return node("section", node("h2", section.title), node("p", section.lead, class_="sub"), grid, note)


def _asset(name: str) -> Markup:
    return trusted(files("r1ray.report").joinpath(name).read_text(encoding="utf-8"))
