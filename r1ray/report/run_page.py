"""The page of a run: header, held-out accuracy, sections of small charts, responses, figures, details, events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from r1ray.report import run_sections as sections
from r1ray.report.charts import Chart, ChartBook
from r1ray.report.evaluated_charts import accuracy_chart, evaluated_chart, part_charts, reflection_chart
from r1ray.report.figures import Figure, figure_table
from r1ray.report.html import Markup, join, node, page
from r1ray.report.panels import ANSWERS, FINETUNING, REWARD_MODEL, SECTIONS, Section, chart
from r1ray.report.record import RunRecord
from r1ray.run.heldout_bounds import heldout_falls
from r1ray.util.formatting import duration, number, share
from r1ray.util.responses import REFLECTIVE_WORDS, ReflectiveWords

HELD_OUT_CHARTS: dict[str, tuple[tuple[str, str, str, Callable[[float], str]], ...]] = {
    ANSWERS.title: (
        ("format", "Held-out format", "share in the requested format", share),
        ("length", "Held-out length", "tokens, mean", number),
    ),
    FINETUNING.title: (
        ("loss", "Held-out loss", "nats per token", number),
        ("token_accuracy", "Held-out token accuracy", "share of tokens that the model ranks first", share),
    ),
    REWARD_MODEL.title: (("accuracy", "Held-out accuracy", "share of rows on which the score is right", share),),
}
"""Columns of the evaluations with a chart in a section: (column, title, note, format)."""


def render_run(run: RunRecord, words: Sequence[str] = REFLECTIVE_WORDS) -> str:
    """Return the page of a run. `words`: the reflective words to count."""
    figures = figure_table(run)
    book = ChartBook(run.steps)
    body: list[Markup | None] = [header(run, {figure.key: figure for figure in figures})]
    if run.steps > 1:
        body += _charts(run, book, ReflectiveWords(words))
    elif run.metrics:
        body.append(sections.only_step(run))
    body += [sections.before_and_after(run), sections.samples(run)]
    if run.metrics or run.evaluations:
        body.append(sections.table_of_figures(figures))
    body += [sections.facts(run), sections.events(run)]
    return page(f"{run_name(run)}: r1ray run report", body, book.data())


def _charts(run: RunRecord, book: ChartBook, words: ReflectiveWords) -> list[Markup | None]:
    not_shown: list[str] = []

    def keep(made: Chart | str, title: str) -> Chart | None:
        if isinstance(made, str):
            not_shown.append(f"{title} ({made})")
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
            for key, title, note, show in HELD_OUT_CHARTS.get(section.title, ())
        ]
        if section is ANSWERS:
            charts += [keep(made, title) for title, made in part_charts(run).items()]
            charts.append(keep(reflection_chart(run, words), "Reflective words"))
        out.append(_section(section, [book.small(c) for c in charts if c], not_shown))
        not_shown = []
    return out


def _section(section: Section, drawings: list[Markup], not_shown: list[str]) -> Markup:
    note = node("p", f"Not shown: {'; '.join(not_shown)}.", class_="left-out") if not_shown else None
    grid = node("div", join(drawings), class_="grid") if drawings else None
    return node("section", node("h2", section.title), node("p", section.lead, class_="sub"), grid, note)


def run_name(run: RunRecord) -> str:
    """Return the run's name in its configuration, else its id."""
    return str(run.setting("run.name") or run.identity.run_id)


def header(run: RunRecord, figures: Mapping[str, Figure]) -> Markup:
    """Return the title, a summary in two or three sentences, and the key figures as tiles."""
    over = [node("span", "r1ray run report"), node("span", run.identity.run_id), node("span", _state(run))]
    return node(
        "header",
        node("div", *over, class_="over"),
        node("h1", run_name(run)),
        node("p", " ".join(_sentences(run, figures)), class_="lead"),
        node("dl", *_tiles(figures), class_="tiles") if run.metrics or run.evaluations else None,
    )


def _state(run: RunRecord) -> str:
    wanted = run.setting("run.steps")
    return run.state if run.state == "finished" or not wanted else f"{run.state}, {run.steps:,} of {wanted:,} steps"


def _sentences(run: RunRecord, figures: Mapping[str, Figure]) -> list[str]:
    if not run.metrics:
        return ["No training step has finished yet, so there is nothing to plot."]
    value = {key: figure.value for key, figure in figures.items()}
    steps = f"{run.steps:,} training step{'s' if run.steps != 1 else ''}"
    if run.identity.use == "sft":
        return _finetuned(run, steps)
    if run.identity.use == "reward-model":
        return _reward_model(run, steps)
    out = []
    start, end = value["heldout_accuracy_start"], value["heldout_accuracy"]
    if isinstance(start, float | int) and isinstance(end, float | int) and value["heldout_step"]:
        text = f"Held-out accuracy on {value['heldout_source']} went from {share(start)} to {share(end)} in {steps}"
        first, last = value["heldout_greedy_accuracy_start"], value["heldout_greedy_accuracy"]
        if isinstance(first, float | int) and isinstance(last, float | int):
            text += f", and from {share(first)} to {share(last)} with greedy decoding"
        out.append(text + ".")
    elif isinstance(end, float | int):
        out.append(f"{steps} so far. Policy {value['heldout_step']} solves {share(end)} of {value['heldout_source']}.")
    else:
        out.append(f"{steps} so far; no held-out problems were evaluated.")
    bounds = run.setting("hacking_monitor.max_heldout_fall") or {}
    out += [f"{fall.text}." for fall in heldout_falls(run.evaluations, bounds)]
    first, last = value["length_start"], value["length_end"]
    if run.steps > 1 and isinstance(first, float | int) and isinstance(last, float | int):
        out.append(f"The mean response length went from {number(first)} to {number(last)} tokens.")
    seconds = value["training_seconds"]
    if isinstance(seconds, float):
        out.append(f"Training took {duration(seconds)} after the first step.")
    if run.ledger_age is not None:
        out.append(f"Counts of dropped groups are {run.ledger_age}.")
    if (limit := run.bottleneck) is not None:
        out.append(f"Speed of the last steps: {limit}.")
    return out


def _finetuned(run: RunRecord, steps: str) -> list[str]:
    rows = run.evaluated(run.sources[0]) if run.sources else []
    if len(rows) < 2:
        return [f"{steps} of supervised fine-tuning so far."]
    first, last = rows[0], rows[-1]
    hits = f"{share(first['token_accuracy'])} to {share(last['token_accuracy'])}"
    return [
        f"Held-out loss on {run.sources[0]} went from {number(first['loss'])} to {number(last['loss'])} nats per token "
        f"in {steps} of supervised fine-tuning, and token accuracy from {hits}."
    ]


def _reward_model(run: RunRecord, steps: str) -> list[str]:
    rows = run.evaluated(run.sources[0]) if run.sources else []
    if len(rows) < 2:
        return [f"{steps} of reward-model training so far."]
    first, last = share(rows[0]["accuracy"]), share(rows[-1]["accuracy"])
    return [f"Held-out accuracy on {run.sources[0]} went from {first} to {last} in {steps} of reward-model training."]


_TILES = (
    ("heldout_accuracy", "Held-out accuracy, sampled"),
    ("heldout_greedy_accuracy", "Held-out accuracy, greedy"),
    ("heldout_format", "Held-out format"),
    ("heldout_token_accuracy", "Held-out token accuracy"),
    ("heldout_loss", "Held-out loss, nats per token"),
    ("length_end", "Response length, tokens"),
    ("completion_tokens_per_second", "Completion tokens trained per second"),
    ("seconds_to_first_step", "Start to first step"),
)


def _tiles(figures: Mapping[str, Figure]) -> list[Markup]:
    out = []
    for key, label in _TILES:
        figure = figures[key]
        if figure.value is None:
            continue
        before = figures.get("length_start" if key == "length_end" else f"{key}_start")
        was = f"from {before.text}" if before and before.value not in (None, figure.value) else None
        value = node("dd", figure.text, node("span", was, class_="was") if was else None)
        out.append(node("div", node("dt", label), value, class_="tile"))
    return out
