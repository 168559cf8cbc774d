"""The policies of a recipe in one table on the terminal; the page has the rest."""

from __future__ import annotations

from rich.table import Table

from r1ray.models.card import with_error
from r1ray.report.recipe_record import RecipeRecord
from r1ray.util.formatting import duration, number, share

_PARTS = ("format", "language")


def summary(recipe: RecipeRecord) -> Table | None:
    """A row for each evaluated policy: figures on the first benchmark, accuracy on the others. None without evaluations."""
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
