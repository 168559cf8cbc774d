"""What would stop a later stage is refused before the first one begins, and told by the plan."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r1ray.config.schema import Config, DataConfig, ModelConfig
from r1ray.errors import ConfigError
from r1ray.recipe import preflight
from r1ray.recipe.eval_settings import eval_overrides_for
from r1ray.recipe.plan import as_json, plan
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.tasks import Task, make_tasks
from tests.unit.data_helpers import write_jsonl
from tests.unit.model_folder import write_model
from tests.unit.recipe_support import RECIPE, journal, run, write_recipe

OWN = (
    RECIPE.replace("base: {kind: tiny}", "base: model\n  problems: problems.jsonl")
    .replace("options: {benchmarks: [bus], k: 4}", "options: {benchmarks: [gsm8k], data: {gsm8k: '@problems'}}")
    .replace("extends: [tiny]", "extends: [tiny]\n  config: {data: {template: plain}, model: {max_length: 192}}")
)
GOOD = [{"question": "How many are two and two?", "answer": "#### 4"}]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("model"))


def told(path: Path, *overlays: str) -> str:
    recipe = read_recipe(path, overlays)
    made = make_tasks(recipe)
    console = Console(file=io.StringIO(), width=400)
    console.print(plan(recipe, made))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(line in text for line in as_json(recipe, made)["problems"])
    return text


def refused(path: Path, *overlays: str) -> str:
    with pytest.raises(ConfigError) as error:
        run(path, *overlays)
    assert not Path("journal").exists()
    assert not Path("out").exists()
    return str(error.value)


def test_a_recipe_whose_benchmarks_and_models_fit_runs() -> None:
    write_jsonl(Path("problems.jsonl"), GOOD)
    path = write_recipe(OWN)
    assert "would be refused" not in told(path)
    assert run(path) == 0
    assert journal()


def test_a_benchmark_that_is_not_there_is_refused_before_the_first_stage() -> None:
    path = write_recipe(OWN)
    assert "problems.jsonl is not there" in refused(path)
    assert "Not there, and needed first: problems.jsonl" in told(path)


def test_a_benchmark_of_another_form_is_refused_before_the_first_stage() -> None:
    write_jsonl(Path("problems.jsonl"), [*GOOD, {"question": "How many?"}])
    path = write_recipe(OWN)
    said = "stage eval_zero: the benchmark gsm8k cannot be read at problems.jsonl:2: the column 'answer' is missing"
    assert said in refused(path)
    assert said in told(path)


def test_a_benchmark_of_the_hub_is_loaded_before_the_first_stage_and_not_by_a_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def unreachable(benchmark: Any, data: Any, limit: Any) -> None:
        asked.append(benchmark.name)
        raise ConfigError(f"{benchmark.name} cannot be reached")

    monkeypatch.setattr(preflight, "prepare", unreachable)
    path = write_recipe(OWN.replace("[gsm8k], data: {gsm8k: '@problems'}", "[math500]"))
    assert "would be refused" not in told(path)
    assert asked == []
    write_jsonl(Path("problems.jsonl"), GOOD)
    assert refused(path).splitlines() == [f"stage eval_{name}: math500 cannot be reached" for name in ("zero", "tuned")]
    assert asked == ["math500"]


def test_an_engine_that_cannot_divide_a_models_heads_is_refused_before_the_first_stage() -> None:
    write_jsonl(Path("problems.jsonl"), GOOD)
    engine = "{rollout: {num_gpus: 1, engine: {tensor_parallel_size: 3}}}"
    text = OWN.replace("evaluation:\n  options", f"evaluation:\n  config: {engine}\n  options")
    path = write_recipe(text)
    lines = [line for line in refused(path).splitlines() if "tensor_parallel_size" in line]
    assert [line.split(",")[0] for line in lines] == ["stage eval_zero", "stage eval_tuned"]
    assert "does not divide the model's 4 attention heads (one of 1, 2, 4)" in lines[0]
    assert lines[0] in told(path)
    ours = "    evaluation: {config: {rollout: {engine: {tensor_parallel_size: 2}}}}\n"
    for kind in ("    kind: rl\n", "    kind: sft\n"):
        text = text.replace(kind, kind + ours)
    assert "would be refused" not in told(write_recipe(text))


def test_a_model_whose_positions_end_too_early_is_refused_before_the_first_stage() -> None:
    write_jsonl(Path("problems.jsonl"), GOOD)
    path = write_recipe(OWN.replace("max_length: 192", "max_length: 512"))
    assert "stage zero, with the model in model: model.max_length = 512: is over the model's context" in refused(path)
    bare = write_recipe(OWN.replace("template: plain", "template: r1"))
    assert "data.template = r1: needs a chat template, and model has none" in told(bare)


# --- the evaluation of one policy


def evaluations(path: Path, *overlays: str) -> dict[str, Task]:
    return {t.name: t for t in make_tasks(read_recipe(path, overlays)) if t.kind.name == "eval"}


def test_a_later_file_wins_over_what_an_earlier_one_says_of_one_policys_evaluation() -> None:
    own = "    kind: sft\n    evaluation: {config: {rollout: {workers: 3, max_workers: 3}}}\n"
    path = write_recipe(RECIPE.replace("    kind: sft\n", own))
    workers = {name: t.config.rollout.workers for name, t in evaluations(path).items() if t.config}
    assert workers == {"eval_zero": 1, "eval_tuned": 3}
    Path("more.yaml").write_text("common: {config: {rollout: {workers: 2, max_workers: 2}}}")
    workers = {name: t.config.rollout.workers for name, t in evaluations(path, "more.yaml").items() if t.config}
    assert workers == {"eval_zero": 2, "eval_tuned": 2}


def test_a_stage_without_a_policy_has_no_evaluation() -> None:
    path = write_recipe(RECIPE.replace("    kind: sample\n", "    kind: sample\n    evaluation: {config: {}}\n"))
    with pytest.raises(ConfigError, match="a sample stage gives no policy"):
        read_recipe(path)


def test_an_overlay_takes_an_option_back() -> None:
    Path("more.yaml").write_text(json.dumps({"evaluation": {"options": {"k": None}}}))
    path = write_recipe()
    assert evaluations(path)["eval_zero"].options["k"] == 4
    assert "k" not in evaluations(path, "more.yaml")["eval_zero"].options


@pytest.mark.parametrize(("template", "style"), [("r1_zero", "r1_zero"), ("r1", "think"), ("plain", None)])
def test_a_policy_is_asked_as_it_was_trained_and_its_base_as_the_first_policy_made_of_it(
    template: str, style: str | None
) -> None:
    zero = Config(model=ModelConfig(path="@base"), data=DataConfig(template=template, system_prompt="Be kind."))
    later = Config(model=ModelConfig(path="@base"), data=DataConfig(template="none"))
    keys: dict[str, Any] = {"data": {"template": template, "system_prompt": "Be kind."}}
    if style is not None:
        keys["rewards"] = [{"name": "format", "params": {"style": style}}, {"name": "language"}]
    assert eval_overrides_for("@zero", {"zero": zero, "later": later}) == keys
    assert eval_overrides_for("@base", {"zero": zero, "later": later}) == keys
    assert eval_overrides_for("@other", {"zero": zero, "later": later}) == {}
