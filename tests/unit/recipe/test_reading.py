"""Reading recipes: precedence of files, references, and what is refused with which message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r1ray.errors import ConfigError
from r1ray.recipe.reading import read_recipe
from r1ray.recipe.tasks import Task, make_tasks
from tests.unit.recipe_support import RECIPE, STAGES, overlay, tasks, write_recipe


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(text: str, *overlays: str) -> str:
    with pytest.raises(ConfigError) as told:
        make_tasks(read_recipe(write_recipe(text), overlays))
    return str(told.value)


def config(task: Task) -> Any:
    assert task.config is not None
    return task.config


# --- valid recipes


def test_stages_keep_their_order_and_each_policy_is_evaluated() -> None:
    found = tasks()
    assert list(found) == STAGES
    assert found["eval_zero"].options["model"] == "out/zero/final"
    assert [r.reference for r in found["tuned"].inputs] == ["@base", "@cold"]
    assert found["tuned"].inputs[1].path == Path("out/cold/dataset")
    assert config(found["zero"]).run.seed == 3
    assert config(found["zero"]).run.dir == "out/zero"


def test_the_evaluation_of_a_stage_can_be_disabled_and_inputs_can_be_evaluated() -> None:
    text = RECIPE.replace("  options: {benchmarks", "  inputs: [base]\n  options: {benchmarks")
    text = text.replace("kind: sft", "kind: sft\n    evaluate: false")
    assert list(tasks(text)) == ["base", "eval_base", "zero", "eval_zero", "cold", "tuned", "helpful"]


def test_a_later_file_wins_and_within_a_file_the_stage_wins_over_common() -> None:
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
    assert [item.path for item in found["helpful"].inputs] == [Path("out/base/model"), Path("other.jsonl")]
    assert found["cold"].stage.doc == "Samples."


def test_an_overlay_can_remove_stages_that_nothing_reads() -> None:
    assert list(tasks(RECIPE, overlay("stages: {helpful: null}"))) == STAGES[:-1]
    assert "@cold: no such stage or input" in refusal(RECIPE, overlay("stages: {cold: null}"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stages: {zeroo: {doc: x}}", r"stages.zeroo = '...' (overlay.yaml:1): no such stage; did you mean zero?"),
        ("stages: {zero: {confg: {}}}", "stages.zero.confg = {} (overlay.yaml:1): no such key; did you mean config?"),
        ("stages: {zero: {kind: sft}}", "cannot change the kind rl"),
        ("inputs: {bases: x}", "no such input; did you mean base?"),
        ("nmae: x", "no such key; did you mean name?"),
        ("evaluation: {options: {limits: 1}}", "did you mean limit?"),
        ("evaluation: {options: {k: many}}", "expected a value of type integer"),
        (
            "stages: {zero: {config: {rollout: {group_sze: 3}}}}",
            "overlay.yaml:1): no such key; did you mean rollout.group_size?",
        ),
        ("stages: {zero: {config: {run: {dir: x}}}}", "the recipe sets this key itself"),
        ("stages: {cold: {evaluate: true}}", "trains no policy"),
        ("inputs: {base: {kind: tiny, config: {}}}", "a tiny stage takes no configuration"),
        ("seed: -1", "expected an integer >= 0"),
        ("parallel: 0", "expected an integer >= 1"),
        ("evaluation: {inputs: [cold]}", "no such input"),
        ("extends: [x]", "a recipe file has no `extends`"),
    ],
)
def test_an_invalid_overlay_is_refused(text: str, told: str) -> None:
    assert told in refusal(RECIPE, overlay(text))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"@zero"', '"@tuned"', "stage cold: @tuned: is cold itself or a later stage"),
        ('"@zero"', '"@cold"', "stage cold: @cold: is cold itself"),
        ('"@cold"', '"@colt"', "no such stage or input; did you mean cold?"),
        ('path: "@cold"', 'path: "@zero"', "@zero: expected a stage or input that produces data, got model"),
        (
            "run: {steps: 3}",
            'run: {steps: 3}\n      ray: {temp_dir: "@base"}',
            "@base: used in a key that takes neither a model nor data",
        ),
        ("kind: sample", "kind: sampel", "no such kind of stage"),
        ("  helpful:", "  eval_x:", "not a valid name of a stage"),
        ("  helpful:", "  logs:", "not a valid name of a stage"),
        ("  helpful:", "  pairs:", "is also the name of an input"),
        ("name: small", "doc: small", "name = null: is missing"),
        ("limit: 8", "limit: 0", "stage cold: data.train.0.limit: expected an integer >= 1 or null, got 0"),
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
        ("options: {benchmarks", "options: {benchmark", "did you mean benchmarks?"),
    ],
)
def test_an_invalid_recipe_is_refused(old: str, new: str, told: str) -> None:
    assert old in RECIPE
    assert told in refusal(RECIPE.replace(old, new))


def test_the_problems_of_all_stages_are_reported_together() -> None:
    told = refusal(RECIPE.replace("steps: 3", "steps: 0").replace("limit: 8", "limit: 0"))
    assert "stage zero: run.steps: expected an integer >= 1, got 0" in told
    assert "stage cold: data.train.0.limit: expected an integer >= 1 or null, got 0" in told
