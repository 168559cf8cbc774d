"""One run or recipe folder in, one self-contained HTML page out: nothing in it is fetched, and nothing a model wrote can run.

page = header, held-out accuracy, four sections of small charts, responses, table of figures, facts, events
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from r1ray.errors import ConfigError
from r1ray.report import sections
from r1ray.report.charts import ChartBook
from r1ray.report.figures import table
from r1ray.report.markup import Markup, join, node
from r1ray.report.page import page
from r1ray.report.panels import (
    ANSWERS,
    FINETUNING,
    SECTIONS,
    Section,
    accuracy_chart,
    chart,
    evaluated_chart,
    reflection_chart,
)
from r1ray.report.recipe_page import render_recipe
from r1ray.report.recipe_record import is_recipe, load_recipe
from r1ray.report.record import RunRecord, load_record
from r1ray.report.story import header, name_of
from r1ray.report.svg import Chart
from r1ray.run.folder import RunFolder
from r1ray.util.files import write_atomic
from r1ray.util.formatting import number, share
from r1ray.util.responses import REFLECTIVE_WORDS, ReflectiveWords

HELD_OUT: dict[str, tuple[tuple[str, str, str, Callable[[float], str]], ...]] = {
    ANSWERS.title: (
        ("format", "Held-out format", "share in the asked form", share),
        ("length", "Held-out length", "tokens, mean", number),
    ),
    FINETUNING.title: (
        ("loss", "Held-out loss", "nats a token", number),
        ("token_accuracy", "Held-out token accuracy", "share of tokens that are the most likely", share),
    ),
}
"""Columns of the evaluations that are drawn in a section."""


def build_report(folder: Path, *, words: Sequence[str] = REFLECTIVE_WORDS) -> Path:
    """Write `report.html` into a run folder or a recipe folder, whatever its state, and return its path.

    `words` are the reflective words that are counted. Raises ConfigError where `folder` is neither, or has a report already.
    """
    if is_recipe(folder):
        text = render_recipe(load_recipe(folder), words)
    else:
        run = load_record(folder)
        if run.identity.use not in SECTIONS:
            told = {"eval": "results.md", "sample": "report.md"}.get(run.identity.use, "another file")
            raise ConfigError(f"{folder} is a run of `r1ray {run.identity.use}`, whose report is {told} in it")
        text = render(run, words)
    path = RunFolder(folder).report
    write_atomic(path, text.encode("utf-8", "replace"))  # a lone surrogate, which UTF-8 lacks, becomes a question mark
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
    return page(f"{name_of(run)}: r1ray run report", body, book)


def _charts(run: RunRecord, book: ChartBook, words: ReflectiveWords) -> list[Markup | None]:
    left_out: list[str] = []

    def keep(made: Chart | str, title: str) -> Chart | None:
        if isinstance(made, str):
            left_out.append(f"{title} ({made})")
            return None
        return made

    out: list[Markup | None] = []
    if run.identity.use == "train":
        accuracy = keep(accuracy_chart(run), "Held-out accuracy")
        out.append(book.large(accuracy) if accuracy else None)
    for section in SECTIONS[run.identity.use]:
        charts = [keep(chart(panel, run), panel.title) for panel in section.panels]
        charts += [
            keep(evaluated_chart(run, key, title=title, note=note, show=show), title)
            for key, title, note, show in HELD_OUT.get(section.title, ())
        ]
        if section is ANSWERS:
            charts.append(keep(reflection_chart(run, words), "Reflective words"))
        out.append(_section(section, [book.small(c) for c in charts if c], left_out))
        left_out = []
    return out


def _section(section: Section, drawings: list[Markup], left_out: list[str]) -> Markup:
    note = node("p", f"Left out: {'; '.join(left_out)}.", class_="left-out") if left_out else None
    grid = node("div", join(drawings), class_="grid") if drawings else None
    return node("section", node("h2", section.title), node("p", section.lead, class_="sub"), grid, note)
