"""Tasks: commands, fingerprints and the configuration of evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1ray.config.schema import Config, DataConfig, ModelConfig
from r1ray.errors import ConfigError
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.tasks import Task, eval_overrides_for, make_tasks
from tests.unit.recipe_support import RECIPE, overlay, tasks, write_recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_commands_are_those_a_user_would_type() -> None:
    found = tasks()
    assert found["base"].command(resume=False) == ["tiny", "out/base/model", "--seed", "3"]
    assert found["zero"].command(resume=False) == ["train", "out/stages/zero.yaml"]
    assert found["zero"].command(resume=True) == ["train", "--resume", "out/zero", "out/stages/zero.yaml"]
    assert found["helpful"].command(resume=False) == ["reward-model", "out/stages/helpful.yaml"]
    assert found["helpful"].command(resume=True) == [
        "reward-model",
        "--resume",
        "out/helpful",
        "out/stages/helpful.yaml",
    ]
    evaluation = found["eval_zero"].command(resume=False)
    assert evaluation[:2] == ["eval", "out/zero/final"]
    assert evaluation[evaluation.index("--benchmarks") + 1] == "bus"


def test_placement_does_not_change_the_fingerprint_of_a_reward_model_and_its_rows_do() -> None:
    plain = tasks()["helpful"].fingerprint
    placement = "learner: {ranks: 8, zero_stage: 3, num_gpus: 1.0}, ray: {address: auto}, deadlines: {step_s: 7200.0}"
    placed = tasks(RECIPE, overlay(f"stages: {{helpful: {{config: {{{placement}}}}}}}"))["helpful"]
    assert placed.config is not None
    assert placed.config.learner.ranks == 8
    assert placed.fingerprint == plain
    longer = tasks(RECIPE, overlay("stages: {helpful: {config: {reward_model: {epochs: 2}}}}"))["helpful"]
    assert longer.fingerprint != plain


def evaluations(path: Path, *overlays: str) -> dict[str, Task]:
    return {t.name: t for t in make_tasks(read_recipe(path, overlays)) if t.kind.name == "eval"}


def test_a_later_file_overrides_the_evaluation_of_one_policy() -> None:
    own = "    kind: sft\n    evaluation: {config: {rollout: {workers: 3, max_workers: 3}}}\n"
    path = write_recipe(RECIPE.replace("    kind: sft\n", own))
    workers = {name: t.config.rollout.workers for name, t in evaluations(path).items() if t.config}
    assert workers == {"eval_zero": 1, "eval_tuned": 3}
    Path("more.yaml").write_text("common: {config: {rollout: {workers: 2, max_workers: 2}}}")
    workers = {name: t.config.rollout.workers for name, t in evaluations(path, "more.yaml").items() if t.config}
    assert workers == {"eval_zero": 2, "eval_tuned": 2}


def test_an_evaluation_of_a_stage_without_a_policy_is_refused() -> None:
    path = write_recipe(RECIPE.replace("    kind: sample\n", "    kind: sample\n    evaluation: {config: {}}\n"))
    with pytest.raises(ConfigError, match="a sample stage trains no policy"):
        read_recipe(path)


def test_null_in_an_overlay_removes_an_option() -> None:
    Path("more.yaml").write_text(json.dumps({"evaluation": {"options": {"k": None}}}))
    path = write_recipe()
    assert evaluations(path)["eval_zero"].options["k"] == 4
    assert "k" not in evaluations(path, "more.yaml")["eval_zero"].options


@pytest.mark.parametrize(("template", "style"), [("r1_zero", "r1_zero"), ("r1", "think"), ("plain", None)])
def test_an_evaluation_uses_the_prompt_template_of_training(template: str, style: str | None) -> None:
    zero = Config(model=ModelConfig(path="@base"), data=DataConfig(template=template, system_prompt="Be kind."))
    later = Config(model=ModelConfig(path="@base"), data=DataConfig(template="none"))
    keys: dict[str, Any] = {"data": {"template": template, "system_prompt": "Be kind."}}
    if style is not None:
        keys["rewards"] = [{"name": "format", "params": {"style": style}}, {"name": "language"}]
    assert eval_overrides_for("@zero", {"zero": zero, "later": later}) == keys
    assert eval_overrides_for("@base", {"zero": zero, "later": later}) == keys
    assert eval_overrides_for("@other", {"zero": zero, "later": later}) == {}
