"""Which model a folder stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ray.errors import ConfigError
from r1ray.run.policy import ancestors, find_policy, leading_policies
from tests.synthetic_run import write_run
from tests.unit.model_folder import write_model


def stage(kind: str, *inputs: str, state: str = "done") -> dict[str, Any]:
    return {"kind": kind, "inputs": list(inputs), "state": state}


R1 = {
    "r1_zero": stage("rl", "@base"),
    "eval_r1_zero": stage("eval", "@r1_zero"),
    "cold_start": stage("sample", "@r1_zero"),
    "cold_start_sft": stage("sft", "base", "cold_start"),
    "reasoning_rl": stage("rl", "cold_start_sft"),
    "rejection": stage("sample", "reasoning_rl"),
    "sft": stage("sft", "base", "rejection"),
    "rl_all": stage("rl", "sft", "safety_model"),
    "safety_model": stage("reward_model", "base"),
    "distill": stage("sft", "student", "rejection"),
    "student_rl": stage("rl", "student"),
}


def test_a_recipe_stands_for_the_policy_that_stands_on_the_most_stages():
    assert leading_policies(R1) == ["rl_all"]
    assert ancestors("reasoning_rl", R1) == {"cold_start_sft", "cold_start", "r1_zero"}
    unfinished = {**R1, "rl_all": stage("rl", "sft", state="running")}
    # The two stand on the same stages; students come last in the file.
    assert leading_policies(unfinished) == ["distill"]
    assert leading_policies({"cold_start": R1["cold_start"]}) == []


def test_policies_that_have_nothing_to_do_with_each_other_stand_side_by_side(tmp_path):
    stages = {
        "made": stage("tiny"),  # a base that the recipe builds is no stage to stand on
        "small": stage("sft", "@made", "data/samples"),
        "large": stage("sft", "models/large", "data/samples"),
        "late": stage("sft", "models/late", "data/samples", state="running"),
    }
    assert leading_policies(stages) == ["small", "large"]
    (tmp_path / "recipe.json").write_text(json.dumps({"stages": [{"name": n, **s} for n, s in stages.items()]}))
    with pytest.raises(ConfigError, match=r"has several final policies: give the folder of one, e\.g\. .*small"):
        find_policy(tmp_path)


def write_recipe(folder: Path) -> Path:
    run = write_run(folder / "r1_zero", steps=1)
    write_model(run / "final")
    stages = [{"name": "r1_zero", **stage("rl", "base")}, {"name": "sft", **stage("sft", "r1_zero", state="pending")}]
    (folder / "recipe.json").write_text(json.dumps({"name": "r1", "dir": str(folder), "stages": stages}))
    return folder


def test_models_runs_stages_and_recipes(tmp_path):
    recipe = write_recipe(tmp_path / "r1")
    run = recipe / "r1_zero"
    for asked in (recipe, run):
        found = find_policy(asked).ready()
        assert (found.model, found.run, found.recipe, found.stage) == (run / "final", run, recipe, "r1_zero")
    model = find_policy(run / "final")
    assert (model.model, model.run, model.template) == (run / "final", None, None)


def test_the_template_is_that_of_the_training(tmp_path):
    run = write_recipe(tmp_path / "r1") / "r1_zero"
    assert find_policy(run).template is None
    (run / "config.yaml").write_text("data: {template: r1_zero}\n")
    assert find_policy(run).template == "r1_zero"


def test_what_gives_no_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a model folder"):
        find_policy(tmp_path)
    run = write_run(tmp_path / "run", steps=1)
    with pytest.raises(ConfigError, match=r"no final model yet.*r1ray export"):
        find_policy(run).ready()
    (tmp_path / "recipe.json").write_text('{"stages": []}')
    with pytest.raises(ConfigError, match="no finished stage"):
        find_policy(tmp_path)
