"""Running a recipe: stages that are skipped, resumed, set aside or refused."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from r1ray.errors import ConfigError, IntegrityError, StageFailed
from r1ray.run.folder import RunFolder
from tests.unit.recipe_support import RECIPE, STAGES, faults, journal, outputs, run, stages_run, write_recipe

DEADLINE_S = 30.0


pytestmark = pytest.mark.usefixtures("recipe_folder")


# --- skipping and running again


def test_stages_run_in_order_and_are_skipped_when_done() -> None:
    path = write_recipe()
    assert run(path) == 0
    assert stages_run() == STAGES
    before = outputs()
    assert run(path) == 0
    assert stages_run() == []
    assert outputs() == before


def test_a_changed_value_runs_the_stage_and_its_readers_again() -> None:
    path = write_recipe()
    run(path)
    journal()
    path.write_text(RECIPE.replace("limit: 8", "limit: 9"))
    assert run(path) == 0
    # The script ignores the limit, so the sample is the same and its readers stay valid.
    assert stages_run() == ["cold"]
    assert Path("out/cold.1/lineage.json").exists()
    path.write_text(RECIPE.replace("run: {steps: 3}", "run: {steps: 3, seed: 9}"))
    assert run(path) == 0
    assert stages_run() == ["zero", "eval_zero", "cold", "tuned", "eval_tuned"]


def test_a_changed_curation_keeps_the_samples() -> None:
    path = write_recipe()
    run(path)
    journal()
    path.write_text(RECIPE.replace("limit: 8}]}", "limit: 8}]}\n      curation: {per_prompt: 2}"))
    assert run(path) == 0
    assert "cold: curation.per_prompt changed; its samples are kept" in Path("screen").read_text()
    assert stages_run() == []  # the script had done all its steps
    assert not Path("out/cold.1").exists()
    lineage = json.loads(Path("out/cold/lineage.json").read_text())
    assert lineage["fingerprint"]["config"]["curation.per_prompt"] == 2
    assert lineage["attempts"] == 2
    assert run(path) == 0
    path.write_text(
        RECIPE.replace("limit: 8}]}", "limit: 8}]}\n      curation: {per_prompt: 2}\n      rollout: {top_p: 0.9}")
    )
    run(path)
    assert stages_run() == ["cold"]


def test_keys_that_only_affect_speed_do_not_invalidate_a_stage() -> None:
    path = write_recipe()
    run(path)
    journal()
    path.write_text(RECIPE.replace("run: {steps: 3}", "run: {steps: 3}\n      checkpoint: {every_steps: 7}"))
    assert run(path) == 0
    assert stages_run() == []


def test_changed_data_and_changed_outputs_are_noticed() -> None:
    path = write_recipe()
    run(path)
    journal()
    Path("pairs.jsonl").write_text('{"prompt": "b"}\n')
    run(path)
    assert stages_run() == ["helpful"]
    Path("out/zero/final/w").write_text("modified")
    run(path)
    assert stages_run() == ["zero"]  # its output is the same again, so its readers stay valid
    Path("out/eval_zero/results.json").unlink()
    run(path)
    assert stages_run() == ["eval_zero"]


def test_a_changed_user_defined_reward_invalidates_the_stages_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    module = Path("own_reward_of_a_recipe.py")
    module.write_text("def good(sample):\n    return 1.0\n")
    reward = "rewards: [{name: accuracy, params: {verifier: task}}, {name: 'own_reward_of_a_recipe:good', weight: 0.5}]"
    path = write_recipe(RECIPE.replace("run: {steps: 3}", f"run: {{steps: 3}}\n      {reward}"))
    run(path)
    assert "own_reward_of_a_recipe:good" in json.loads(Path("out/zero/lineage.json").read_text())["inputs"]
    journal()
    module.write_text("def good(sample):\n    return 0.0\n")
    assert run(path) == 0
    assert "zero: own_reward_of_a_recipe:good changed" in Path("screen").read_text()
    assert stages_run() == ["zero"]  # its output is the same again


def test_lineage_records_how_the_output_was_made() -> None:
    run(write_recipe())
    lineage = json.loads(Path("out/tuned/lineage.json").read_text())
    assert lineage["recipe"] == "small"
    assert lineage["kind"] == "sft"
    assert lineage["seed"] == 3
    assert lineage["command"] == ["sft", "out/stages/tuned.yaml"]
    assert lineage["config"]["data"]["train"][0]["path"] == "out/cold/dataset"
    cold = json.loads(Path("out/cold/lineage.json").read_text())
    assert lineage["inputs"]["@cold"] == {"path": "out/cold/dataset", "digest": cold["output"]["digest"]}
    assert lineage["code"]["r1ray"]
    assert lineage["code"]["python"]
    assert 0 < lineage["seconds"] <= lineage["ended"] - lineage["started"] + 0.01
    record = json.loads(Path("out/recipe.json").read_text())
    assert [s["name"] for s in record["stages"]] == STAGES
    assert {s["state"] for s in record["stages"]} == {"done"}
    assert record["stages"][1]["doc"] == "Reasoning from nothing."


# --- only, from, resume, fresh


def test_only_runs_one_stage_whose_inputs_are_done() -> None:
    path = write_recipe()
    with pytest.raises(ConfigError, match=r"stage zero: reads @base, which is not done"):
        run(path, only="zero")
    assert not Path("out").exists()
    run(path, only="base")
    run(path, only="zero")
    assert stages_run() == ["base", "zero"]


def states() -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in json.loads(Path("out/recipe.json").read_text())["stages"]}


def test_readers_of_a_stage_that_ran_alone_are_done_only_if_its_output_is_the_same() -> None:
    path = write_recipe()
    run(path)
    Path("out/zero/final/w").write_text("modified")
    assert run(path, only="zero") == 0
    assert set(states().values()) == {"done"}
    path.write_text(RECIPE.replace("run: {steps: 3}", "run: {steps: 3, seed: 9}"))
    assert run(path, only="zero") == 0
    done = [name for name, state in states().items() if state == "done"]
    assert done == ["base", "zero", "helpful"]


def test_from_runs_a_stage_and_its_readers_again_and_continues_after_a_failure() -> None:
    path = write_recipe()
    run(path)
    journal()
    faults("tuned 1 fail")
    with pytest.raises(StageFailed):
        run(path, from_stage="cold")
    assert stages_run() == ["cold", "tuned"]
    assert run(path) == 0
    assert stages_run() == ["tuned", "eval_tuned"]
    assert Path("out/eval_tuned.1").exists()
    with pytest.raises(ConfigError, match=r"no stage clod .*cold"):
        run(path, from_stage="clod")


def test_resume_requires_a_recipe_and_fresh_sets_it_aside() -> None:
    path = write_recipe()
    with pytest.raises(ConfigError, match="contains no recipe"):
        run(path, resume=True)
    assert not Path("out").exists()
    run(path)
    assert run(path, resume=True) == 0
    journal()
    assert run(path, fresh=True) == 0
    assert stages_run() == STAGES
    assert Path("out.1/recipe.json").exists()


@pytest.mark.parametrize("selection", [{"only": "zero"}, {"from_stage": "zero"}])
def test_fresh_does_not_read_inputs_from_the_folder_that_it_sets_aside(selection: dict[str, str]) -> None:
    path = write_recipe()
    run(path)
    journal()
    with pytest.raises(ConfigError, match="stage zero: reads @base, which is set aside by --fresh"):
        run(path, fresh=True, **selection)
    assert not Path("out.1").exists()
    assert stages_run() == []
    assert run(path, fresh=True, only="base") == 0
    assert stages_run() == ["base"]


@pytest.mark.parametrize("record", ["zero/lineage.json", "stages/zero.json"])
def test_records_of_another_version_are_refused_and_fresh_sets_them_aside(record: str) -> None:
    path = write_recipe()
    run(path)
    journal()
    Path("out", record).write_text('{"format": 99}')
    with pytest.raises(IntegrityError, match="--fresh"):
        run(path)
    assert run(path, fresh=True) == 0
    assert stages_run() == STAGES
    assert json.loads(Path("out.1", record).read_text()) == {"format": 99}


def test_a_folder_that_is_no_recipe_is_not_touched() -> None:
    path = write_recipe()
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("x")
    for fresh in (False, True):
        with pytest.raises(ConfigError, match="is not the folder of a recipe"):
            run(path, fresh=fresh)
    assert [p.name for p in Path("out").iterdir()] == ["thesis.tex"]


def test_a_missing_input_is_refused_before_anything_is_written() -> None:
    path = write_recipe()
    Path("pairs.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"stage helpful: pairs\.jsonl does not exist"):
        run(path)
    assert not Path("out").exists()


def test_a_folder_in_use_is_refused() -> None:
    path = write_recipe()
    run(path)
    with RunFolder(Path("out")) as other:
        other.lock()
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
            run(path)


# --- several stages at once


PARALLEL = RECIPE.replace("seed: 3\n", "seed: 3\nparallel: 2\n", 1)


def test_stages_that_do_not_need_each_other_run_at_once_and_stop_together() -> None:
    path = write_recipe(PARALLEL)
    faults("zero 1 meet", "helpful 1 meet")  # each waits until the other has started
    assert run(path) == 0
    steps = journal()
    assert sorted(steps) == sorted(f"{stage} {step}" for stage in STAGES for step in range(3))
    for before, after in (("base", "zero"), ("zero", "cold"), ("cold", "tuned"), ("tuned", "eval_tuned")):
        assert steps.index(f"{before} 2") < steps.index(f"{after} 0")
    assert set(states().values()) == {"done"}
    alone = outputs()
    assert run(write_recipe(), fresh=True) == 0
    assert outputs() == alone


def test_after_a_failure_the_stage_beside_it_ends_and_no_other_starts() -> None:
    path = write_recipe(PARALLEL)
    faults("zero 1 meet", "helpful 1 meet", "zero 2 fail")
    with pytest.raises(StageFailed, match="zero exited with code 3"):
        run(path)
    assert {name: states()[name] for name in ("zero", "helpful", "eval_zero")} == {
        "zero": "failed",
        "helpful": "done",
        "eval_zero": "pending",
    }
    assert run(path) == 0
    assert Counter(journal()) == {f"{stage} {step}": 1 for stage in STAGES for step in range(3)}


# --- failures


def test_a_failing_stage_ends_the_recipe_with_its_error_and_log() -> None:
    path = write_recipe()
    faults("cold 1 fail")
    with pytest.raises(StageFailed, match=r"cold exited with code 3: ConfigError: cold fails at step 1") as told:
        run(path)
    assert told.value.exit_code == 3
    assert "out/logs/cold.log" in str(told.value)
    states = {s["name"]: s["state"] for s in json.loads(Path("out/recipe.json").read_text())["stages"]}
    assert (states["zero"], states["cold"], states["tuned"]) == ("done", "failed", "pending")


def test_a_stage_that_exits_with_0_without_its_output_failed() -> None:
    path = write_recipe()
    faults("zero 1 stop")
    with pytest.raises(StageFailed, match="stopped early"):
        run(path)
    assert not Path("out/zero/lineage.json").exists()
    assert run(path) == 0
