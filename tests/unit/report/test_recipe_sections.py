"""Students in the recipe page: distilled, trained by RL, and in a recipe of independent policies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.report.recipe_record import load_recipe
from tests.synthetic_recipe import DISTILLED, write_recipe
from tests.unit.report.test_recipe_page import after, read, rows_of


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "distill", made=DISTILLED)


def test_students_are_compared_on_each_benchmark(tmp_path: Path) -> None:
    page = after(read(write_recipe(tmp_path / "r1")), "Distillation compared with reinforcement learning")
    assert rows_of(page, "student_rl")[:3] == ["reinforcement learning", "student_base", "bus"]
    taught = rows_of(page, "distill")
    assert taught[:3] == ["distilled", "student_base, rejection", "bus"]
    assert taught[5] == "100%"
    assert taught[6].startswith("9")
    table = page.source.split("</table>")[0]
    assert table.count("distilled") == 2  # a row per benchmark
    assert "bus-long" in table


def test_independent_policies_are_all_students(distilled: Path) -> None:
    recipe = load_recipe(distilled)
    assert recipe.main is None
    names = [stage.name for stage in recipe.students()]
    assert names == ["distill", "cold_start_sft", "sft"]
    page = read(distilled)
    best = recipe.figure("distill", "accuracy")
    text = " ".join(page.texts["p"])
    assert f"Of 3 independent policies, distill has the highest accuracy on bus: {100 * best:.0f}%." in text
    assert "reinforcement" not in text
    assert " from " not in " ".join(page.texts["dd"])
    assert "Distilled students" in page.texts["h2"]
    assert "Distillation compared with reinforcement learning" not in page.texts["h2"]
    section = after(page, "Distilled students")
    assert [rows_of(section, name)[2] for name in names] == ["bus"] * 3
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d %", rows_of(section, "sft")[3])


def test_independent_policies_have_no_main_one(distilled: Path) -> None:
    found = json.loads(CliRunner().invoke(build_app(), ["report", str(distilled), "--json"]).stdout)
    assert found["main"] is None
    assert set(found["policies"]) == {"distill", "cold_start_sft", "sft"}
