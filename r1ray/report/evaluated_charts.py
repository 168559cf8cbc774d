"""Charts of evaluations and of the kept responses."""

from __future__ import annotations

from collections.abc import Callable

from r1ray.report.charts import Chart, Series
from r1ray.report.record import RunRecord
from r1ray.report.texts import reflection_shares
from r1ray.util.formatting import number, share
from r1ray.util.responses import ReflectiveWords


def accuracy_chart(run: RunRecord) -> Chart | str:
    """Return the held-out accuracy of each source: sampled with its standard error, greedy and majority vote."""
    series = []
    for i, source in enumerate(run.sources):
        prefix = f"{source}, " if len(run.sources) > 1 else ""
        for key, name, dashed in (
            ("accuracy", "sampled", False),
            ("greedy_accuracy", "greedy", True),
            ("consensus", "majority vote", True),
        ):
            rows = [row for row in run.evaluated(source) if row.get(key) is not None]
            if not rows:
                continue
            errors = tuple(float(row.get("accuracy_se") or 0.0) for row in rows) if key == "accuracy" else ()
            points = tuple((float(row["step"]), float(row[key])) for row in rows)
            colour = (2 * i + (key == "consensus")) % 6 + 1
            series.append(
                Series(name=prefix + name, points=points, colour=colour, dashed=dashed, marked=True, errors=errors)
            )
    if not series:
        return "nothing was evaluated"
    return Chart(title="Held-out accuracy", note="share of problems solved", series=tuple(series), show=share, top=1.0)


def evaluated_chart(
    run: RunRecord, key: str, *, title: str, note: str, show: Callable[[float], str], zero: bool = True
) -> Chart | str:
    """Return a chart of one column of the evaluations, with a line per source. `zero`: its axis includes zero."""
    series = []
    for i, source in enumerate(run.sources):
        points = tuple(
            (float(row["step"]), float(row[key])) for row in run.evaluated(source) if row.get(key) is not None
        )
        if points:
            series.append(Series(name=source, points=points, colour=2 * i % 6 + 1, marked=True))
    if not series:
        return "nothing was evaluated"
    top = 1.0 if show is share else None
    return Chart(title=title, note=note, series=tuple(series), show=show, top=top, zero=zero)


def part_charts(run: RunRecord) -> dict[str, Chart | str]:
    """Return the title and the chart of each reward that evaluations measure besides accuracy and format."""
    titles = {name: f"Held-out {name.replace('_', ' ')}" for name in run.heldout_parts}
    return {
        title: evaluated_chart(run, f"part/{name}", title=title, note="mean over problems", show=number, zero=False)
        for name, title in titles.items()
    }


def reflection_chart(run: RunRecord, words: ReflectiveWords) -> Chart | str:
    """Return the share of kept responses with a reflective word, in bins of at least twenty responses."""
    points = reflection_shares(run.transcripts, words)
    if not points:
        return "no responses were kept"
    if not any(y for _, y in points):
        return f"no kept response contains {', '.join(words.words)}"
    line = Series(name="with a reflective word", points=points, colour=1, marked=True)
    return Chart(title="Reflective words", note="share of kept responses with one", series=(line,), show=share)
