"""The page of a recipe, with the figures of the DeepSeek-R1 paper, and its summary on the terminal.

page = header, training curves, corrections, language, benchmarks, students, published figures, data, cost, lineage
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from r1ray.models.card import with_error
from r1ray.report import recipe_sections as sections
from r1ray.report.charts import ChartBook
from r1ray.report.html import Markup, node, page
from r1ray.report.recipe_charts import legs, total_steps, training_curves
from r1ray.report.recipe_record import RecipeRecord
from r1ray.report.texts import TextStats, text_stats
from r1ray.run.policy import EVALUATION
from r1ray.util.formatting import duration, number, share
from r1ray.util.responses import REFLECTIVE_WORDS, ReflectiveWords


def render_recipe(recipe: RecipeRecord, words: Sequence[str] = REFLECTIVE_WORDS) -> str:
    """Return the page of a recipe. `words`: the reflective words to count."""
    counted = ReflectiveWords(words)
    found = _text_stats(recipe, counted)
    over = legs(recipe)
    book = ChartBook(max(total_steps(over), 1))
    body: list[Markup | None] = [
        header(recipe, found),
        training_curves(over, book, counted),
        sections.corrections_section(over, found, counted),
        sections.language(found),
        sections.benchmarks(recipe, found),
        sections.students(recipe, found),
        sections.published(recipe),
        *sections.data(recipe),
        sections.cost(recipe),
        sections.lineage(recipe),
    ]
    return page(f"{recipe.name}: r1ray recipe report", body, book.data())


def _text_stats(recipe: RecipeRecord, words: ReflectiveWords) -> dict[str, TextStats]:
    """Return the text statistics of each evaluated policy."""
    found = {}
    for policy in recipe.evaluated():
        stage = recipe.stage(EVALUATION + policy)
        if stage is not None:
            found[policy] = text_stats(stage.samples(), words)
    return found


def header(recipe: RecipeRecord, found: Mapping[str, TextStats]) -> Markup:
    """Return the title, a summary in a few sentences, and the key figures as tiles."""
    done = sum(stage.done for stage in recipe.stages)
    over = [node("span", "r1ray recipe report"), node("span", f"{done} of {len(recipe.stages)} stages done")]
    tiles = _tiles(recipe, found)
    return node(
        "header",
        node("div", *over, class_="over"),
        node("h1", recipe.name),
        node("p", recipe.doc, class_="sub doc") if recipe.doc else None,
        node("p", " ".join(_sentences(recipe, found)), class_="lead"),
        node("dl", *tiles, class_="tiles") if tiles else None,
    )


def first_policy(recipe: RecipeRecord) -> str | None:
    """Return what the main policy is compared with: the base if it was evaluated, else the first evaluated policy."""
    students = {stage.name for stage in recipe.students()}
    names = [name for name in recipe.evaluated() if name not in students]
    return names[0] if recipe.main is not None and names and names[0] != recipe.main else None


def _sentences(recipe: RecipeRecord, found: Mapping[str, TextStats]) -> list[str]:
    best = recipe.best()
    if recipe.main is None and best is not None:
        reached = share(recipe.figure(best.name, "accuracy"))
        count = sum(bool(recipe.results(stage.name)) for stage in recipe.students())
        return [
            f"Of {count} independent policies, {best.name} has the highest accuracy on {_short(recipe.benchmark)}: "
            f"{reached}."
        ]
    accuracy = recipe.figure(recipe.main, "accuracy")
    if recipe.main is None or accuracy is None:
        return ["No policy of this recipe has been trained and evaluated yet."]
    error = recipe.figure(recipe.main, "accuracy_se")
    text = (
        f"{recipe.main} solves {share(accuracy)}{f' (± {share(error)})' if error else ''} of {_short(recipe.benchmark)}"
    )
    first = first_policy(recipe)
    before = recipe.figure(first, "accuracy")
    out = [f"{text}; {first} solves {share(before)}." if before is not None else f"{text}."]
    mixed = _before_and_after(recipe, found)
    if mixed is not None:
        name, worst, now = mixed
        out.append(
            f"Words of the thinking in the language of the question: {share(worst)} after {name}, {share(now)} now."
        )
    taught, trained = recipe.best("sft"), recipe.best("rl")
    if taught is not None and trained is not None and set(taught.inputs) & set(trained.inputs):
        reached, other = (share(recipe.figure(s.name, "accuracy")) for s in (taught, trained))
        out.append(
            f"A distilled student reaches {reached}; the same student trained by reinforcement learning {other}."
        )
    return out


def _short(benchmark: str | None) -> str:
    """Return the name of a benchmark without its parameters."""
    return (benchmark or "").partition(":")[0]


def _before_and_after(recipe: RecipeRecord, found: Mapping[str, TextStats]) -> tuple[str, float, float] | None:
    """Return the first RL stage and the share of words in the target language after it and of the main policy."""
    first = next((stage.name for stage in recipe.main_line("rl")), None)
    if first is None or recipe.main is None or first == recipe.main:
        return None
    before, after = found.get(first), found.get(recipe.main)
    worst, now = (None if w is None else w.by_source.get(recipe.benchmark or "") for w in (before, after))
    return None if worst is None or now is None else (first, worst, now)


def _tiles(recipe: RecipeRecord, found: Mapping[str, TextStats]) -> list[Markup]:
    first = first_policy(recipe)
    tiles: list[tuple[str, str, str | None]] = []
    for key, label in (
        ("accuracy", f"Accuracy, {_short(recipe.benchmark)}"),
        ("consensus", "Majority vote"),
        ("parts/format", "Right format"),
    ):
        value, before = recipe.figure(recipe.main, key), recipe.figure(first, key)
        if value is not None:
            changed = before is not None and share(before) != share(value)
            tiles.append((label, share(value), f"from {share(before)}" if changed else None))
    mixed = _before_and_after(recipe, found)
    if mixed is not None:
        tiles.append(("Target language", share(mixed[2]), f"from {share(mixed[1])}"))
    taught = recipe.best("sft")
    if taught is not None:
        tiles.append(
            (f"Distilled student, {_short(recipe.benchmark)}", share(recipe.figure(taught.name, "accuracy")), None)
        )
    seconds = math.fsum(stage.seconds or 0.0 for stage in recipe.stages)
    if seconds:
        tiles.append(("Wall time of all stages", duration(seconds), None))
    return [
        node(
            "div", node("dt", label), node("dd", value, node("span", was, class_="was") if was else None), class_="tile"
        )
        for label, value, was in tiles
    ]


_PARTS = ("format", "language")


def summary_table(recipe: RecipeRecord) -> Table | None:
    """Return a table with a row per evaluated policy: figures on the first benchmark, accuracy on the others.

    None if nothing was evaluated.
    """
    policies = recipe.evaluated()
    if not policies:
        return None
    rows = [row for policy in policies for row in recipe.results(policy)]
    others = [name for name in dict.fromkeys(str(row["benchmark"]) for row in rows) if name != recipe.benchmark]
    parts = [part for part in _PARTS if any(recipe.figure(policy, f"parts/{part}") is not None for policy in policies)]
    table = Table(title=f"{recipe.name}: {recipe.benchmark}", title_justify="left", box=None, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for head in ("accuracy", *parts, "tokens", *others, "trained"):
        table.add_column(head, justify="right", no_wrap=True)
    for policy in policies:
        stage = recipe.stage(policy)
        shares = [share(recipe.figure(policy, f"parts/{part}")) for part in parts]
        table.add_row(
            policy,
            with_error(recipe.figure(policy, "accuracy"), recipe.figure(policy, "accuracy_se")),
            *shares,
            number(recipe.figure(policy, "length")),
            *[_accuracy(recipe, policy, name) for name in others],
            "" if stage is None or stage.seconds is None else duration(stage.seconds),
        )
    return table


def _accuracy(recipe: RecipeRecord, policy: str, benchmark: str) -> str:
    row = next((row for row in recipe.results(policy) if row["benchmark"] == benchmark), None)
    return "" if row is None else with_error(row["accuracy"], row["accuracy_se"])
