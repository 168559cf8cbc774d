"""The top of a recipe's page: what it came to in a sentence or two, and its key figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from r1ray.report.markup import Markup, node
from r1ray.report.recipe_record import RecipeRecord
from r1ray.report.wording import Wording
from r1ray.util.formatting import duration, share


def header(recipe: RecipeRecord, found: Mapping[str, Wording]) -> Markup:
    """Title, sentences, tiles."""
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
    """What the main policy is compared with: the base model where it was evaluated, else the first policy of its line."""
    students = {stage.name for stage in recipe.students()}
    names = [name for name in recipe.evaluated() if name not in students]
    return names[0] if recipe.main is not None and names and names[0] != recipe.main else None


def _sentences(recipe: RecipeRecord, found: Mapping[str, Wording]) -> list[str]:
    best = recipe.best()
    if recipe.main is None and best is not None:
        reached = share(recipe.figure(best.name, "accuracy"))
        count = sum(bool(recipe.results(stage.name)) for stage in recipe.students())
        return [f"Of {count} policies side by side {best.name} solves most of {_short(recipe.benchmark)}: {reached}."]
    accuracy = recipe.figure(recipe.main, "accuracy")
    if recipe.main is None or accuracy is None:
        return ["No policy of this recipe is trained and evaluated yet."]
    error = recipe.figure(recipe.main, "accuracy_se")
    text = (
        f"{recipe.main} solves {share(accuracy)}{f' (± {share(error)})' if error else ''} of {_short(recipe.benchmark)}"
    )
    first = first_policy(recipe)
    before = recipe.figure(first, "accuracy")
    out = [f"{text}, {first} {share(before)}." if before is not None else f"{text}."]
    mixed = _before_and_after(recipe, found)
    if mixed is not None:
        name, worst, now = mixed
        out.append(
            f"Words of the thinking in the language of the question: {share(worst)} after {name}, {share(now)} now."
        )
    taught, trained = recipe.best("sft"), recipe.best("rl")
    if taught is not None and trained is not None and set(taught.inputs) & set(trained.inputs):
        told = " against ".join(share(recipe.figure(s.name, "accuracy")) for s in (taught, trained))
        out.append(f"A distilled student reaches {told} of the same student trained by reinforcement learning.")
    return out


def _short(benchmark: str | None) -> str:
    """Without its parameters."""
    return (benchmark or "").partition(":")[0]


def _before_and_after(recipe: RecipeRecord, found: Mapping[str, Wording]) -> tuple[str, float, float] | None:
    """The first reinforcement learning and what it mixed, and what the main policy still mixes."""
    first = next((stage.name for stage in recipe.main_line("rl")), None)
    if first is None or recipe.main is None or first == recipe.main:
        return None
    before, after = found.get(first), found.get(recipe.main)
    worst, now = (None if w is None else w.by_source.get(recipe.benchmark or "") for w in (before, after))
    return None if worst is None or now is None else (first, worst, now)


def _tiles(recipe: RecipeRecord, found: Mapping[str, Wording]) -> list[Markup]:
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
