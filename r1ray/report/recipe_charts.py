"""Charts of a recipe: its RL stages one after another on one axis of training steps, one colour each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from r1ray.report.charts import Chart, ChartBook, Series
from r1ray.report.html import Markup, join, node, section
from r1ray.report.recipe_record import RecipeRecord
from r1ray.report.record import RunRecord
from r1ray.report.texts import Point, reflection_shares
from r1ray.run.metrics import Row
from r1ray.util.formatting import number, share
from r1ray.util.responses import ReflectiveWords


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """An RL stage on the common axis; its step 0 is at `start`."""

    name: str
    run: RunRecord
    start: int
    colour: int


def legs(recipe: RecipeRecord) -> list[Leg]:
    """Return the RL stages of the main line that have trained or evaluated anything."""
    out: list[Leg] = []
    start = 0
    for stage in recipe.main_line("rl"):
        if stage.run is not None and (stage.run.metrics or stage.run.evaluations):
            out.append(Leg(name=stage.name, run=stage.run, start=start, colour=len(out) % 6 + 1))
            start += stage.run.steps
    return out


def total_steps(found: Sequence[Leg]) -> int:
    """Return the number of training steps of all legs."""
    return found[-1].start + found[-1].run.steps if found else 0


def training_curves(found: Sequence[Leg], book: ChartBook, words: ReflectiveWords) -> Markup | None:
    """Return the section of training curves: accuracy large, others small; None if there is nothing to draw."""
    if total_steps(found) < 2:
        return None
    hero = _chart(found, "Held-out accuracy", _source_note(found), _accuracy, show=share, top=1.0)
    large = book.large(hero) if hero else None
    panels = (
        ("Response length", "tokens, mean of the training responses", _metric("length/mean"), number),
        ("Reflective words", "share of kept responses with one", lambda run: _reflection(run, words), share),
        ("Right format", "held out, share in the requested format", _evaluated("format"), share),
        ("Target language", "reward part, in stages with this reward", _metric("reward/part/language"), share),
        ("Reward", "weighted sum, mean of the step", _metric("reward/mean"), number),
        ("KL to the reference", "nats per token, in stages that measure it", _metric("train/kl"), number),
    )
    made = [(title, _chart(found, title, note, lines, show=show)) for title, note, lines, show in panels]
    small = [book.small(chart) for _, chart in made if chart is not None]
    absent = ", ".join(title for title, chart in made if chart is None)
    not_shown = (
        node("p", f"Not shown, because not recorded or constant: {absent}.", class_="left-out") if absent else None
    )
    names = ", then ".join(f"{leg.name} ({leg.run.steps:,} steps)" for leg in found)
    lead = f"The reinforcement learning stages in order: {names}."
    grid = node("div", join(small), class_="grid") if small else None
    return section("Training curves", lead, large, grid, not_shown)


_Lines = Callable[[RunRecord], list[Series]]


def _chart(
    found: Sequence[Leg],
    title: str,
    note: str,
    lines: _Lines,
    *,
    show: Callable[[float], str],
    top: float | None = None,
) -> Chart | None:
    series = []
    for leg in found:
        for line in lines(leg.run):
            if any(math.isfinite(y) for _, y in line.points):
                points = tuple((x + leg.start, y) for x, y in line.points)
                name = f"{leg.name}, {line.name}" if line.name else leg.name
                series.append(replace(line, name=name, points=points, colour=leg.colour))
    if len({y for line in series for _, y in line.points}) < 2:  # no values, or a constant
        return None
    marks = tuple(float(leg.start) for leg in found if leg.start)
    return Chart(title=title, note=note, series=tuple(series), show=show, top=top, marks=marks)


def _source_note(found: Sequence[Leg]) -> str:
    sources = dict.fromkeys(leg.run.sources[0] for leg in found if leg.run.sources)
    return f"share of problems solved, {' and '.join(sources)}" if sources else ""


def _accuracy(run: RunRecord) -> list[Series]:
    rows = run.evaluated(run.sources[0]) if run.sources else []
    sampled = [row for row in rows if row.get("accuracy") is not None]
    voted = [row for row in rows if row.get("consensus") is not None]
    errors = tuple(float(row.get("accuracy_se") or 0.0) for row in sampled)
    out = [Series(name="", points=_points(sampled, "accuracy"), marked=True, errors=errors)] if sampled else []
    if voted:
        out.append(Series(name="consensus", points=_points(voted, "consensus"), dashed=True, marked=True))
    return out


def _points(rows: Sequence[Row], key: str) -> tuple[Point, ...]:
    return tuple((float(row["step"]), float(row[key])) for row in rows)


def _metric(key: str) -> _Lines:
    def lines(run: RunRecord) -> list[Series]:
        return [Series(name="", points=_points([row for row in run.metrics if key in row], key))]

    return lines


def _evaluated(key: str) -> _Lines:
    def lines(run: RunRecord) -> list[Series]:
        rows = run.evaluated(run.sources[0]) if run.sources else []
        return [Series(name="", points=_points([r for r in rows if r.get(key) is not None], key), marked=True)]

    return lines


def _reflection(run: RunRecord, words: ReflectiveWords) -> list[Series]:
    return [Series(name="", points=reflection_shares(run.transcripts, words), marked=True)]
