"""Problems that would stop a later stage are refused before the first one starts, and shown by the plan."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r1ray.errors import ConfigError
from r1ray.recipe import preflight
from r1ray.recipe.plan import plan_json, plan_table
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.tasks import make_tasks
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


def shown_by_plan(path: Path, *overlays: str) -> str:
    recipe = read_recipe(path, overlays)
    made = make_tasks(recipe)
    console = Console(file=io.StringIO(), width=400)
    console.print(plan_table(recipe, made))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(line in text for line in plan_json(recipe, made)["problems"])
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
    assert "would stop the recipe" not in shown_by_plan(path)
    assert run(path) == 0
    assert journal()


def test_a_missing_benchmark_is_refused_before_the_first_stage() -> None:
    path = write_recipe(OWN)
    assert "problems.jsonl does not exist" in refused(path)
    assert "Missing inputs: problems.jsonl" in shown_by_plan(path)


def test_a_benchmark_in_another_format_is_refused_before_the_first_stage() -> None:
    write_jsonl(Path("problems.jsonl"), [*GOOD, {"question": "How many?"}])
    path = write_recipe(OWN)
    said = "stage eval_zero: the benchmark gsm8k cannot be read at problems.jsonl:2: the column 'answer' is missing"
    assert said in refused(path)
    assert said in shown_by_plan(path)


def test_a_benchmark_on_the_hub_is_loaded_before_the_first_stage_but_not_by_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def unreachable(benchmark: Any, data: Any, limit: Any) -> None:
        asked.append(benchmark.name)
        raise ConfigError(f"{benchmark.name} cannot be reached")

    monkeypatch.setattr(preflight, "prepare", unreachable)
    path = write_recipe(OWN.replace("[gsm8k], data: {gsm8k: '@problems'}", "[math500]"))
    assert "would stop the recipe" not in shown_by_plan(path)
    assert asked == []
    write_jsonl(Path("problems.jsonl"), GOOD)
    assert refused(path).splitlines() == [f"stage eval_{name}: math500 cannot be reached" for name in ("zero", "tuned")]
    assert asked == ["math500"]


def test_tensor_parallelism_that_does_not_divide_the_attention_heads_is_refused_before_the_first_stage() -> None:
    write_jsonl(Path("problems.jsonl"), GOOD)
    engine = "{rollout: {num_gpus: 1, engine: {tensor_parallel_size: 3}}}"
    text = OWN.replace("evaluation:\n  options", f"evaluation:\n  config: {engine}\n  options")
    path = write_recipe(text)
    lines = [line for line in refused(path).splitlines() if "tensor_parallel_size" in line]
    assert [line.split(",")[0] for line in lines] == ["stage eval_zero", "stage eval_tuned"]
    assert "does not divide the model's 4 attention heads (one of 1, 2, 4)" in lines[0]
    assert lines[0] in shown_by_plan(path)
    ours = "    evaluation: {config: {rollout: {engine: {tensor_parallel_size: 2}}}}\n"
    for kind in ("    kind: rl\n", "    kind: sft\n"):
        text = text.replace(kind, kind + ours)
    assert "would stop the recipe" not in shown_by_plan(write_recipe(text))


def test_a_model_with_too_short_a_context_is_refused_before_the_first_stage() -> None:
    write_jsonl(Path("problems.jsonl"), GOOD)
    path = write_recipe(OWN.replace("max_length: 192", "max_length: 512"))
    assert "stage zero, with the model in model: model.max_length = 512: is over the model's context" in refused(path)
    bare = write_recipe(OWN.replace("template: plain", "template: r1"))
    assert "data.template = r1: needs a chat template, and model has none" in shown_by_plan(bare)
