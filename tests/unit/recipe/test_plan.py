"""The plan: states, reasons and cost of stages."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.errors import ConfigError
from r1ray.recipe.plan import GENERATION_SHARE, TFLOPS, TRAINING_SHARE, costs, plan_json, plan_table
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.status import assess_all
from r1ray.recipe.tasks import make_tasks
from tests.unit.recipe_support import RECIPE, STAGES, run, write_recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shown(*overlays: str) -> str:
    recipe = read_recipe(Path("small.yaml"), overlays)
    out = io.StringIO()
    Console(width=200, file=out).print(plan_table(recipe, make_tasks(recipe)))
    return out.getvalue()


def test_the_plan_shows_states_and_their_reasons() -> None:
    path = write_recipe()
    recipe = read_recipe(path)
    assert {s["state"] for s in plan_json(recipe, make_tasks(recipe))["stages"]} == {"pending"}
    assert not Path("out").exists()
    run(path)
    text = shown()
    assert text.count(" done ") == len(STAGES)
    assert " B " in text
    assert "measured" in text
    path.write_text(RECIPE.replace("limit: 8", "limit: 9"))
    states = {
        s["name"]: (s["state"], s["reason"])
        for s in plan_json(read_recipe(path), make_tasks(read_recipe(path)))["stages"]
    }
    assert states["zero"] == ("done", "")
    assert states["cold"] == ("stale", "data.train changed")
    assert states["tuned"] == ("stale", "after cold")
    assert "stale (after cold)" in shown()


def test_the_plan_shows_missing_inputs_and_published_costs() -> None:
    write_recipe(RECIPE.replace("kind: reward_model", "kind: reward_model\n    published: 5 hours [x]"))
    Path("pairs.jsonl").unlink()
    text = shown()
    assert "pending (missing inputs)" in text
    assert "Missing inputs: pairs.jsonl" in text
    assert "5 hours [x]" in text


def test_an_estimate_counts_tokens_times_parameters() -> None:
    text = RECIPE.replace("base: {kind: tiny}", "base: {path: nowhere, parameters: 2.0e9}")
    text = text.replace(
        "common:\n  extends: [tiny]", "common:\n  extends: [tiny]\n  config: {rollout: {num_gpus: 1.0}}"
    )
    text = text.replace("kind: rl", "kind: rl\n    expect: {tokens: 100}")
    recipe = read_recipe(write_recipe(text))
    made = make_tasks(recipe)
    found = costs(recipe, made, assess_all(made))
    tokens = 3 * 32 * 8 * 100  # steps, groups, samples, mean length
    assert (found["zero"].generated, found["zero"].trained) == (tokens, tokens)
    flops = 2 * 2e9 * tokens / GENERATION_SHARE + 6 * 2e9 * tokens / TRAINING_SHARE
    assert found["zero"].gpu_hours == pytest.approx(flops / (TFLOPS * 1e12) / 3600)
    assert found["cold"].generated == 8 * 8 * 110 // 3
    assert found["cold"].gpu_hours == pytest.approx(2 * 2e9 * 2346 / GENERATION_SHARE / (TFLOPS * 1e12) / 3600)
    assert found["tuned"].gpu_hours is None  # the number of conversations is unknown


def test_the_estimate_uses_the_time_of_an_earlier_run() -> None:
    path = write_recipe()
    run(path)
    run(path, from_stage="zero")
    lineage = json.loads(Path("out/zero.1/lineage.json").read_text())
    path.write_text(RECIPE.replace("steps: 3", "steps: 4"))
    recipe = read_recipe(path)
    cost = costs(recipe, make_tasks(recipe), assess_all(make_tasks(recipe)))["zero"]
    assert (cost.seconds, cost.measured) == (lineage["seconds"], False)


def test_the_command_shows_the_plan_and_refuses_conflicting_options() -> None:
    write_recipe()
    runner = CliRunner()
    done = runner.invoke(build_app(), ["recipe", "small.yaml", "--plan", "--json"])
    assert [s["name"] for s in json.loads(done.stdout)["stages"]] == STAGES
    for words in (["--only", "zero", "--from", "zero"], ["--json"], ["--resume", "--fresh"], ["--only", "zer"]):
        refused = runner.invoke(build_app(), ["recipe", "small.yaml", *words])
        assert isinstance(refused.exception, ConfigError), words
    assert not Path("out").exists()
