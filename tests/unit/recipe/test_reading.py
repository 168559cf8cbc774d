"""Reading recipes: what wins, what is refused and how it is told, references, and the plan."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.errors import ConfigError
from r1ray.recipe.cost import GENERATION_SHARE, PEAK_FLOPS, TRAINING_SHARE, costs
from r1ray.recipe.plan import as_json, plan
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.stage_status import assess_all
from r1ray.recipe.tasks import Task, make_tasks
from tests.unit.recipe_support import RECIPE, STAGES, run, write_recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def overlay(text: str, name: str = "overlay.yaml") -> str:
    Path(name).write_text(text)
    return name


def tasks(text: str = RECIPE, *overlays: str) -> dict[str, Task]:
    return {task.name: task for task in make_tasks(read_recipe(write_recipe(text), overlays))}


def refusal(text: str, *overlays: str) -> str:
    with pytest.raises(ConfigError) as told:
        make_tasks(read_recipe(write_recipe(text), overlays))
    return str(told.value)


def config(task: Task) -> Any:
    assert task.config is not None
    return task.config


# --- what a recipe says


def test_stages_come_in_order_each_policy_with_its_evaluation() -> None:
    found = tasks()
    assert tuple(found) == STAGES
    assert found["eval_zero"].options["model"] == "out/zero/final"
    assert [r.reference for r in found["tuned"].reads] == ["@base", "@cold"]
    assert found["tuned"].reads[1].path == Path("out/cold/dataset")
    assert config(found["zero"]).run.seed == 3
    assert config(found["zero"]).run.dir == "out/zero"


def test_inputs_and_stages_may_be_left_out_of_the_evaluation_or_added_to_it() -> None:
    text = RECIPE.replace("  options: {benchmarks", "  inputs: [base]\n  options: {benchmarks")
    text = text.replace("kind: sft", "kind: sft\n    evaluate: false")
    assert tuple(tasks(text)) == ("base", "eval_base", "zero", "eval_zero", "cold", "tuned", "helpful")


def test_commands_are_those_one_would_type() -> None:
    found = tasks()
    assert found["base"].command(resume=False) == ["tiny", "out/base/model", "--seed", "3"]
    assert found["zero"].command(resume=False) == ["train", "out/stages/zero.yaml"]
    assert found["zero"].command(resume=True) == ["train", "--resume", "out/zero", "out/stages/zero.yaml"]
    helpful = ["reward-model", "train", "pairs.jsonl", "--model", "out/base/model", "--kind", "pairwise"]
    assert found["helpful"].command(resume=False) == [*helpful, "--out", "out/helpful/model", "--seed", "3"]
    assert found["helpful"].command(resume=True) == [*found["helpful"].command(resume=False), "--resume"]
    evaluation = found["eval_zero"].command(resume=False)
    assert evaluation[:2] == ["eval", "out/zero/final"]
    assert evaluation[evaluation.index("--benchmarks") + 1] == "bus"


def test_where_a_reward_model_is_trained_makes_it_no_other_stage() -> None:
    there = "{ranks: 8, zero_stage: 3, num_gpus: 1.0, ray_address: auto, deadline_s: 7200}"
    placed, plain = tasks(RECIPE, overlay(f"stages: {{helpful: {{options: {there}}}}}"))["helpful"], tasks()["helpful"]
    words = placed.command(resume=False)
    for option, value in (("ranks", "8"), ("zero-stage", "3"), ("num-gpus", "1.0"), ("ray-address", "auto")):
        assert words[words.index(f"--{option}") + 1] == value
    assert placed.fingerprint == plain.fingerprint


def test_a_later_file_wins_and_within_one_the_stage_does() -> None:
    size = overlay(
        """
        seed: 5
        inputs: {pairs: other.jsonl}
        common: {config: {rollout: {group_size: 4, max_new_tokens: 50}}}
        stages: {zero: {config: {rollout: {max_new_tokens: 60}}}, cold: {doc: Samples.}}
        """
    )
    found = tasks(RECIPE.replace("run: {steps: 3}", "run: {steps: 3}\n      rollout: {group_size: 16}"), size)
    assert config(found["zero"]).rollout.group_size == 4
    assert config(found["zero"]).rollout.max_new_tokens == 60
    assert config(found["cold"]).rollout.max_new_tokens == 50
    assert config(found["eval_zero"]).rollout.max_new_tokens == 50
    assert config(found["zero"]).run.seed == 5
    assert found["helpful"].options["data"] == "other.jsonl"
    assert found["cold"].stage.doc == "Samples."


def test_an_overlay_drops_stages_that_nothing_reads() -> None:
    assert tuple(tasks(RECIPE, overlay("stages: {helpful: null}"))) == STAGES[:-1]
    assert "@cold: no such stage or input" in refusal(RECIPE, overlay("stages: {cold: null}"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stages: {zeroo: {doc: x}}", r"stages.zeroo = '...' (overlay.yaml:1): no such stage; did you mean zero?"),
        ("stages: {zero: {confg: {}}}", "stages.zero.confg = {} (overlay.yaml:1): no such key; did you mean config?"),
        ("stages: {zero: {kind: sft}}", "is another kind than rl"),
        ("inputs: {bases: x}", "no such input; did you mean base?"),
        ("nmae: x", "no such key; did you mean name?"),
        ("stages: {helpful: {options: {epoch: 1}}}", "did you mean epochs?"),
        ("stages: {helpful: {options: {epochs: many}}}", "is no whole"),
        (
            "stages: {zero: {config: {rollout: {group_sze: 3}}}}",
            "overlay.yaml:1): no such key; did you mean rollout.group_size?",
        ),
        ("stages: {zero: {config: {run: {dir: x}}}}", "is the recipe's to set"),
        ("stages: {cold: {evaluate: true}}", "gives no policy"),
        ("stages: {helpful: {config: {}}}", "a reward_model stage has none"),
        ("seed: -1", "is not a whole number from 0"),
        ("evaluation: {inputs: [cold]}", "is no input"),
        ("extends: [x]", "a recipe extends nothing"),
    ],
)
def test_what_an_overlay_may_not_say(text: str, told: str) -> None:
    assert told in refusal(RECIPE, overlay(text))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"@zero"', '"@tuned"', "stage cold: @tuned: is cold itself or comes after it"),
        ('"@zero"', '"@cold"', "stage cold: @cold: is cold itself"),
        ('"@cold"', '"@colt"', "no such stage or input; did you mean cold?"),
        ('path: "@cold"', 'path: "@zero"', "@zero: gives model, where a stage or input that gives data is needed"),
        (
            "run: {steps: 3}",
            'run: {steps: 3}\n      ray: {temp_dir: "@base"}',
            "@base: stands where no model and no data",
        ),
        ("kind: sample", "kind: sampel", "is no kind of stage"),
        ("  helpful:", "  eval_x:", "is no name of a stage"),
        ("  helpful:", "  logs:", "is no name of a stage"),
        ("  helpful:", "  pairs:", "is an input as well"),
        ("name: small", "doc: small", "name = null: is missing"),
        ("limit: 8", "limit: 0", "stage cold: data.train.0.limit = 0"),
        (
            "run: {steps: 3}",
            "run: {steps: 3}\n      algorithm: {loss: dapo}",
            "stage zero: algorithm.clip_high = 0.2",
        ),
        (
            "        evaluation: []",
            "        evaluation: []\n      learner: {offload_optimizer: true}",
            "stage tuned: learner.offload_optimizer = true",
        ),
        ("options: {data", "options: {dtype: float32, dota", "did you mean data?"),
    ],
)
def test_what_a_recipe_may_not_say(old: str, new: str, told: str) -> None:
    assert old in RECIPE
    assert told in refusal(RECIPE.replace(old, new))


def test_all_stages_tell_their_problems_at_once() -> None:
    told = refusal(RECIPE.replace("steps: 3", "steps: 0").replace("limit: 8", "limit: 0"))
    assert "stage zero: run.steps = 0" in told
    assert "stage cold: data.train.0.limit = 0" in told


# --- the plan


def shown(*overlays: str) -> str:
    recipe = read_recipe(Path("small.yaml"), overlays)
    out = io.StringIO()
    Console(width=200, file=out).print(plan(recipe, make_tasks(recipe)))
    return out.getvalue()


def test_the_plan_shows_what_is_done_and_why_the_rest_is_not() -> None:
    path = write_recipe()
    recipe = read_recipe(path)
    assert {s["state"] for s in as_json(recipe, make_tasks(recipe))["stages"]} == {"to do"}
    assert not Path("out").exists()
    run(path)
    text = shown()
    assert text.count(" done ") == len(STAGES)
    assert " B " in text
    assert "measured" in text
    path.write_text(RECIPE.replace("limit: 8", "limit: 9"))
    states = {
        s["name"]: (s["state"], s["why"]) for s in as_json(read_recipe(path), make_tasks(read_recipe(path)))["stages"]
    }
    assert states["zero"] == ("done", "")
    assert states["cold"] == ("stale", "data.train changed")
    assert states["tuned"] == ("stale", "after cold")
    assert "stale (after cold)" in shown()


def test_the_plan_tells_of_inputs_that_are_not_there_and_of_published_costs() -> None:
    write_recipe(RECIPE.replace("kind: reward_model", "kind: reward_model\n    published: 5 hours [x]"))
    Path("pairs.jsonl").unlink()
    text = shown()
    assert "to do (inputs are not there)" in text
    assert "Not there, and needed first: pairs.jsonl" in text
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
    assert found["zero"].gpu_hours == pytest.approx(flops / PEAK_FLOPS / 3600)
    assert found["cold"].generated == 8 * 8 * 110 // 3
    assert found["cold"].gpu_hours == pytest.approx(2 * 2e9 * 2346 / GENERATION_SHARE / PEAK_FLOPS / 3600)
    assert found["tuned"].gpu_hours is None  # how many conversations there will be is not known


def test_times_are_taken_from_an_earlier_run_of_the_stage() -> None:
    path = write_recipe()
    run(path)
    run(path, since="zero")
    lineage = json.loads(Path("out/zero.1/lineage.json").read_text())
    path.write_text(RECIPE.replace("steps: 3", "steps: 4"))
    recipe = read_recipe(path)
    cost = costs(recipe, make_tasks(recipe), assess_all(make_tasks(recipe)))["zero"]
    assert (cost.seconds, cost.measured) == (lineage["seconds"], False)


def test_the_command_plans_and_refuses() -> None:
    write_recipe()
    runner = CliRunner()
    done = runner.invoke(build_app(), ["recipe", "small.yaml", "--plan", "--json"])
    assert [s["name"] for s in json.loads(done.stdout)["stages"]] == list(STAGES)
    for words in (["--only", "zero", "--from", "zero"], ["--json"], ["--resume", "--fresh"], ["--only", "zer"]):
        refused = runner.invoke(build_app(), ["recipe", "small.yaml", *words])
        assert isinstance(refused.exception, ConfigError), words
    assert not Path("out").exists()
