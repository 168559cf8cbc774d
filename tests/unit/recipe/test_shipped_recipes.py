"""Recipes that ship with r1ray: every configuration of every size is valid for its command."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.config.sources import CONF_DIR
from r1ray.models.published import published_shape
from r1ray.preflight.placement import make_plan
from r1ray.recipe.plan import costs
from r1ray.recipe.preflight import base_model
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.stages import Recipe
from r1ray.recipe.status import assess_all
from r1ray.recipe.tasks import Task, make_tasks
from r1ray.util.machine import this_machine

RECIPES = CONF_DIR / "recipes"
SIZES = [(name, size) for name in ("r1", "r1_zero", "distill") for size in ("paper", "small", "tiny")]


@functools.cache
def read(name: str, size: str) -> tuple[Recipe, tuple[Task, ...]]:
    recipe = read_recipe(RECIPES / f"{name}.yaml", [] if size == "paper" else [f"recipes/{name}.{size}"])
    return recipe, make_tasks(recipe)


def tasks(name: str, size: str) -> tuple[Task, ...]:
    return read(name, size)[1]


def config_of(name: str, size: str, stage: str) -> Config:
    config = next(task.config for task in tasks(name, size) if task.name == stage)
    assert config is not None
    return config


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_every_stage_is_one_that_its_command_takes_and_has_a_cost(
    name: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, made = read(name, size)  # refuses a configuration that its command would refuse
    assert all("@" not in task.config_yaml for task in made)
    found = costs(recipe, made, assess_all(made))
    assert all(cost.seconds is not None or cost.gpu_hours is not None for cost in found.values())
    assert all(task.stage.doc or not task.inputs for task in made)


def test_what_a_stage_is_given_reads_as_what_was_checked(tmp_path: Path) -> None:
    for task in tasks("r1", "tiny"):
        if task.config is None or task.kind.use is None:
            continue
        file = tmp_path / f"{task.name}.yaml"
        file.write_text(task.config_yaml, encoding="utf-8")
        again = load_config([str(file)], use=task.kind.use).config
        assert again.run == task.config.run
        assert again.learner == task.config.learner
        assert again.rollout == task.config.rollout


def test_every_file_of_the_recipes_belongs_to_one() -> None:
    named = {f"{name}.yaml" if size == "paper" else f"{name}.{size}.yaml" for name, size in SIZES}
    assert {p.name for p in RECIPES.glob("*.yaml")} == named
    text = "".join(p.read_text() for p in RECIPES.rglob("*.yaml"))
    for part in (RECIPES / "parts").glob("*.yaml"):
        assert re.search(rf"parts/{part.stem}\b|\[{part.name}\]", text), f"nothing uses {part}"


def test_the_stages_of_r1_are_those_of_the_paper() -> None:
    names = [task.name for task in tasks("r1", "paper") if task.kind.name != "eval"]
    assert names == [
        "r1_zero", "cold_start", "cold_start_sft", "reasoning_rl", "rejection", "sft", "helpful_model", "safety_model",
        "rl_all", "distill", "student_rl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("r1_zero", "learner.optimizer.lr", 3e-6),
        ("r1_zero", "algorithm.kl_coefficient", 0.001),
        ("r1_zero", "rollout.group_size", 16),
        ("r1_zero", "rollout.temperature", 1.0),
        ("reasoning_rl", "algorithm.clip_low", 10.0),
        ("reasoning_rl", "rollout.max_new_tokens", 32768),
        ("rl_all", "rollout.temperature", 0.7),
        ("rl_all", "algorithm.clip_high", 10.0),
        ("sft", "learner.optimizer.lr", 5e-5),
        ("sft", "learner.optimizer.min_lr_ratio", 0.1),
        ("sft", "sft.batch_size", 128),
        ("sft", "model.max_length", 32768),
        ("distill", "sft.batch_size", 64),
        ("distill", "learner.optimizer.lr", 6e-5),
    ],
)
def test_the_papers_figures_are_in_force(stage: str, key: str, value: float) -> None:
    value_there: object = next(task.config for task in tasks("r1", "paper") if task.name == stage)
    for part in key.split("."):
        value_there = getattr(value_there, part)
    assert value_there == value


@pytest.mark.parametrize(("size", "share"), [("paper", 0.75), ("small", 0.75), ("tiny", 0.15)])
def test_preferences_are_rewarded_in_the_last_part_of_the_steps_alone(size: str, share: float) -> None:
    config = config_of("r1", size, "rl_all")
    learned = {reward.name for reward in config.rewards if reward.name.startswith("model/")}
    assert len(learned) == 2
    judged = [s for s in config.data.train if s.rewards is None or learned & set(s.rewards)]
    assert [source.name for source in judged] == ["general"]
    assert share * config.run.steps <= judged[0].from_step < config.run.steps


def evaluations(name: str, size: str) -> list[tuple[Task, Config]]:
    return [(t, t.config) for t in tasks(name, size) if t.kind.name == "eval" and t.config is not None]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_every_policy_and_the_base_it_began_with_is_measured_in_its_own_form(name: str, size: str) -> None:
    styles = {"r1_zero": "r1_zero", "r1": "think", "plain": None}  # the embedded models write tags of their own
    if name != "distill":
        assert evaluations(name, size)[0][0].name == "eval_base"
    for task, config in evaluations(name, size):
        rewards = {reward.name: reward.params.get("style") for reward in config.rewards}
        assert rewards == {"format": styles[config.data.template], "language": None}, task.name
        trained = next((t.config for t in tasks(name, size) if f"@{t.name}" == config.model.path), None)
        frame = trained or config_of(name, size, "r1_zero")
        assert config.data.template == frame.data.template


@pytest.mark.parametrize("name", ["r1", "r1_zero", "distill"])
def test_an_evaluation_of_the_papers_size_has_room_for_long_prompts_and_long_answers(name: str) -> None:
    for task, config in evaluations(name, "paper"):
        assert (config.model.max_length, config.data.max_prompt_tokens) == (36_864, 4_096)
        assert task.options["max_new_tokens"] == 32_768
        assert "@livecodebench" in [read.reference for read in task.inputs]
        assert any(read.reference in task.stage.options["against"] for read in task.inputs)


HEADS = {"base": 128, "student": 40, "base_qwen_math_1_5b": 12, "base_qwen_math_7b": 28, "base_qwen_14b": 40,
         "base_qwen_32b": 40, "base_llama_8b": 32, "base_llama_70b": 64}  # fmt: skip
"""Attention heads, as the models' own config.json have them."""


@pytest.mark.parametrize("name", ["r1", "r1_zero", "distill"])
def test_engines_of_the_papers_size_divide_the_heads_of_their_models(name: str) -> None:
    recipe, made = read(name, "paper")
    seen = 0
    for task in made:
        if task.config is not None and task.kind.use in ("train", "sample", "eval"):
            given = next(i.name for i in recipe.inputs.values() if i.path == str(base_model(task, made)))
            assert HEADS[given] % task.config.rollout.engine.tensor_parallel_size == 0, task.name
            seen += 1
    assert seen


@pytest.mark.parametrize("size", ["paper", "small"])
@pytest.mark.parametrize("name", ["r1", "r1_zero", "distill"])
def test_a_stage_names_its_hardware_and_fits_it(name: str, size: str) -> None:
    for task in tasks(name, size):
        if task.config is None or task.kind.use is None:
            continue
        shape = published_shape(str(base_model(task, tasks(name, size))))
        assert shape is not None, task.name
        assert task.config.hardware.gpu is not None, task.name
        config = replace(task.config, ray=replace(task.config.ray, address="head:6379"))
        found = {p.key for p in make_plan(config, shape, this_machine(), task.kind.use).problems}
        assert found == set(), task.name


@pytest.mark.parametrize("size", ["paper", "small"])
@pytest.mark.parametrize("name", ["r1", "r1_zero"])
def test_prompts_are_compared_with_what_the_recipe_evaluates(name: str, size: str) -> None:
    benchmarks = set(evaluations(name, size)[0][0].options["benchmarks"])
    for task in tasks(name, size):
        if task.config is not None and task.kind.name in ("rl", "sample"):
            assert task.config.data.decontaminate
            assert {s.name for s in task.config.data.decontaminate_against} == benchmarks


@pytest.mark.parametrize(("name", "size"), [s for s in SIZES if s[0] != "distill"])
def test_training_has_accuracy_and_consensus_over_steps(name: str, size: str) -> None:
    for task in tasks(name, size):
        if task.config is not None and task.kind.name == "rl":
            evaluation = task.config.evaluation
            assert evaluation.samples == {"paper": 16, "small": 4, "tiny": 4}[size]
            assert 0 < evaluation.every_steps < task.config.run.steps
            assert task.config.data.evaluation
            if size == "paper":
                assert [s.name for s in task.config.data.evaluation] == ["aime24"]
                assert (evaluation.temperature, evaluation.top_p) == (0.6, 0.95)


def test_the_quotas_of_the_paper_can_be_reached() -> None:
    config, rows = (
        config_of("r1", "paper", "rejection"),
        {"maths": 26_000, "code": 17_000, "stem": 22_000, "logic": 15_000},
    )
    for source in config.data.train:
        samples = min(rows[source.name], source.limit or rows[source.name]) * config.rollout.group_size
        assert config.curation.quotas[source.name] < 0.3 * samples, (
            source.name
        )  # beside what is wrong, mixed, long or alike


def test_a_step_of_the_paper_is_a_minibatch_here() -> None:
    config = next(task.config for task in tasks("r1", "paper") if task.name == "r1_zero")
    assert config is not None
    learner, questions = config.learner, 32
    assert learner.groups_per_step // learner.minibatches == questions
    assert learner.groups_per_step * config.rollout.group_size == 8192
    assert config.run.steps * learner.minibatches == 10_400
    assert (config.algorithm.reference_refresh_steps or 0) * learner.minibatches == 400


def test_a_distilled_base_has_the_papers_learning_rate() -> None:
    rates = {
        t.name: t.config.learner.optimizer.lr for t in tasks("distill", "paper") if t.config and t.kind.name == "sft"
    }
    assert rates == {
        "qwen_math_1_5b": 1e-4, "qwen_math_7b": 8e-5, "qwen_14b": 7e-5, "qwen_32b": 6e-5, "llama_8b": 5e-5, "llama_70b": 2e-5,
    }  # fmt: skip


@pytest.mark.parametrize("size", ["paper", "small", "tiny"])
def test_general_answers_have_thinking_exactly_where_the_template_of_who_learns_them_opens_it(size: str) -> None:
    made = {task.name: task.config for task in tasks("r1", size)}
    dataset, learner = made["rejection"], made["sft"]
    assert dataset is not None
    assert learner is not None
    assert dataset.curation.general
    assert dataset.curation.empty_thinking == (learner.data.template == "r1")
