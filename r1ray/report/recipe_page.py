"""The page of a recipe: the figures of the paper, made from the run folders of its stages.

page = header, charts over the steps, turns, language, benchmarks, students, published figures, data, cost, lineage
"""

from __future__ import annotations

from collections.abc import Sequence

from r1ray.report import recipe_provenance as provenance
from r1ray.report import recipe_sections as sections
from r1ray.report.charts import ChartBook
from r1ray.report.markup import Markup
from r1ray.report.page import page
from r1ray.report.recipe_charts import legs, length_of, over_steps
from r1ray.report.recipe_record import RecipeRecord
from r1ray.report.recipe_story import header
from r1ray.report.wording import Wording, wording
from r1ray.run.policy import EVALUATION
from r1ray.util.responses import REFLECTIVE_WORDS, ReflectiveWords


def render_recipe(recipe: RecipeRecord, words: Sequence[str] = REFLECTIVE_WORDS) -> str:
    """The page as text."""
    counted = ReflectiveWords(words)
    found = _wording(recipe, counted)
    over = legs(recipe)
    book = ChartBook(max(length_of(over), 1))
    body: list[Markup | None] = [
        header(recipe, found),
        over_steps(over, book, counted),
        sections.turned(over, found, counted),
        sections.language(found),
        sections.benchmarks(recipe, found),
        sections.students(recipe, found),
        sections.published(recipe),
        *provenance.data(recipe),
        provenance.cost(recipe),
        provenance.lineage(recipe),
    ]
    return page(f"{recipe.name}: r1ray recipe report", body, book)


def _wording(recipe: RecipeRecord, words: ReflectiveWords) -> dict[str, Wording]:
    """By evaluated policy."""
    found = {}
    for policy in recipe.evaluated():
        stage = recipe.stage(EVALUATION + policy)
        if stage is not None:
            found[policy] = wording(stage.samples(), words)
    return found
