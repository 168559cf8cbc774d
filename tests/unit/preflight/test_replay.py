"""What a start and `--dry-run` say of a recorded run: whether its groups are those that the configuration describes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.load import load_config
from r1ray.errors import ConfigError, IntegrityError
from r1ray.ledger import Ledger
from r1ray.preflight.prepare import EMBEDDED_FOLDER, Preparation
from r1ray.preflight.replay import check_recorded_data
from r1ray.run.folder import RunFolder
from r1ray.util.files import read_json
from tests.unit.data_helpers import write_jsonl
from tests.unit.ledger_support import rules
from tests.unit.recorded import B, extend

pytestmark = pytest.mark.usefixtures("here")
RECORDED, RUN = Path("runs/tiny"), Path("runs/other")
STEPS = 4
SMALL = (f"learner.groups_per_step={B}", "learner.minibatches=1", "data.evaluation=[]", "evaluation.every_steps=0")


def record(*overrides: str, keep: int = 99, steps: int = STEPS) -> RunFolder:
    """A run of four saved steps of two groups."""
    folder = Preparation.new(["tiny"], [*SMALL, *overrides]).folder()
    folder.release()
    ledger = Ledger.create(folder.ledger, rules(keep_payload_steps=keep), run_id=folder.identity().run_id)
    with closing(ledger):
        extend(ledger, steps, lambda index: (0.0, 1.0) if index % 4 else (1.0, 1.0))
    return folder


@pytest.fixture
def recorded() -> RunFolder:
    return record()


def new(*overrides: str, path: Path = RECORDED) -> Preparation:
    settings = [*SMALL, "run.steps=3", f"run.dir={RUN}", f"replay.run={path}", *overrides]
    return Preparation.new(["tiny"], settings)


def test_a_replay_plans_a_learner_and_a_queue_only(recorded: RunFolder) -> None:
    preparation = new("algorithm.loss=cispo", "algorithm.clip_low=1", "learner.optimizer.lr=1e-5")
    plan = preparation.check()
    assert [role.name for role in plan.roles] == ["learner rank", "queue"]
    text = preparation.describe(plan)
    said = f"Replay: 8 groups, of 4 steps from step 0, of the run {recorded.identity().run_id} in runs/tiny"
    assert said in text


def test_what_is_recorded_now_is_fixed_at_the_start(recorded: RunFolder) -> None:
    with new().folder() as folder:
        fixed = read_json(folder.replay)
    with closing(Ledger.open(recorded.ledger)) as live:  # the recorded run continues
        extend(live, 2)
    assert fixed == {"run_id": recorded.identity().run_id, "first_step": 0, "steps": 4, "groups_per_step": 2}
    with Preparation.resumed(RUN, [], ["run.steps=4"]).folder() as folder:
        assert read_json(folder.replay) == fixed
    with pytest.raises(ConfigError, match=r"run\.steps = 5 .*needs 10 groups .* there are 8 recorded groups"):
        Preparation.resumed(RUN, [], ["run.steps=5"]).folder()


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "too few groups": (("run.steps=5",), r"run\.steps = 5 .*: needs 10 groups .* use at most 4, or replay\.epochs=2"),
    "larger batches": (("learner.groups_per_step=4",), r"needs 12 groups .* there are 8 recorded groups x 1 passes"),
    "too few with a signal": (
        ("algorithm.dynamic_sampling=true", "run.steps=4"),
        r"there are 6 recorded groups whose rewards differ .* use at most 3",
    ),
    "another group size": (
        ("rollout.group_size=4",),
        r"rollout\.group_size = 4 .*: the groups were recorded with 8; use",
    ),
    "other rewards": (("rewards=[{name: accuracy, params: {verifier: task}}]",), r"rewards = .* were recorded with"),
    "another weight": (("rewards.0.weight=2.0",), r"rewards = .* were recorded with"),
    "other prompts": (("data.train=[{name: sums, path: arithmetic}]",), r"data\.train = .* were recorded with"),
    "another limit": (("rollout.max_new_tokens=40",), r"rollout\.max_new_tokens = 40 .* were recorded with"),
    "another temperature": (("rollout.temperature=0.5",), r"rollout\.temperature = 0\.5 .* were recorded with 1\.0"),
    "a loss without its settings": (("algorithm.loss=dr_grpo",), r"does not fit algorithm\.loss = dr_grpo"),
}


@pytest.mark.parametrize(("overrides", "message"), WRONG.values(), ids=WRONG)
def test_what_the_recording_is_not_is_refused_by_key(
    recorded: RunFolder, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        new(*overrides).check()
    assert not RUN.exists()


def test_keys_that_a_replay_does_not_read_are_not_checked(recorded: RunFolder) -> None:
    new("rollout.num_gpus=1", "rollout.workers=9", "rollout.engine.kv_cache_gib=null", "queue.max_staleness=0").check()
    new("run.deterministic=true", "queue.max_staleness=3").check()


def test_passes_make_up_for_groups(recorded: RunFolder) -> None:
    new("run.steps=8", "replay.epochs=2").check()


def test_pruned_steps_are_left_out(here: Path) -> None:
    record(keep=2)
    assert "4 groups, of 2 steps from step 2" in new("run.steps=2").check().notes[0]
    with pytest.raises(ConfigError, match=r"run\.steps = 3 .*there are 4 recorded groups"):
        new().check()


def test_a_run_without_a_saved_step_has_nothing_yet(here: Path) -> None:
    record(steps=0)
    with pytest.raises(ConfigError, match=r"there are 0 recorded groups .* wait for the first checkpoint"):
        new().check()


def _none(folder: RunFolder) -> Path:
    return Path("runs/none")


def _no_ledger(folder: RunFolder) -> Path:
    folder.ledger.unlink()
    return folder.path


def _of_sft(folder: RunFolder) -> Path:
    run = read_json(folder.run_json)
    folder.run_json.write_text(json.dumps({**run, "use": "sft"}))
    return folder.path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_none, r"replay\.run = runs/none: runs/none is not a run folder"),
        (_no_ledger, "has no ledger yet"),
        (_of_sft, "a run of `r1ray sft` has no scored groups"),
        (lambda folder: RUN, r"replay\.run = runs/other: .* not a run folder"),
    ],
)
def test_what_is_no_recording_is_refused(recorded: RunFolder, spoil: Callable[[RunFolder], Path], message: str) -> None:
    path = spoil(recorded)
    with pytest.raises(ConfigError, match=message):
        new(path=path).check()


def test_a_run_is_no_recording_of_itself(recorded: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"is run\.dir itself"):
        new(f"run.dir={RECORDED}").check()


def test_another_vocabulary_is_refused_and_another_base_is_told(recorded: RunFolder) -> None:
    shutil.copytree(EMBEDDED_FOLDER, "models/other")
    with Path("models/other/model.safetensors").open("ab") as weights:
        weights.write(b"trained")
    found = new("model.path=models/other").survey()
    assert found is not None
    assert "models/other has the hash" in found.warning
    same = new().survey()
    assert same is not None
    assert same.warning == ""
    Path("models/other/tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    with pytest.raises(ConfigError, match=r"model\.path = 'models/other' .*: has the vocabulary hash"):
        new("model.path=models/other").check()


def test_other_rows_in_the_same_file_are_refused(here: Path) -> None:
    source = "data.train=[{name: sums, kind: jsonl, path: sums.jsonl}]"
    write_jsonl(Path("sums.jsonl"), [{"prompt": f"{i} + 1?", "answer": str(i + 1)} for i in range(9)])
    record(source)
    preparation = new(source)
    check_recorded_data(preparation.loaded)
    with Path("sums.jsonl").open("a") as file:
        file.write('{"prompt": "1 + 1?", "answer": "2"}\n')
    with pytest.raises(ConfigError, match=r"data\.train .*: holds other prompts .* sums rows 9, now 10"):
        check_recorded_data(preparation.loaded)


def test_limits_of_a_schedule_are_not_guessed(here: Path) -> None:
    schedule = "rollout.length_schedule=[{from_step: 2, max_new_tokens: 20}]"
    record(schedule)
    new(schedule).check()
    with pytest.raises(ConfigError, match=r"algorithm\.mask_truncated = true .*needs the limit of each completion"):
        new(schedule, "algorithm.mask_truncated=true").check()


def test_experts_that_were_not_recorded_cannot_be_replayed(recorded: RunFolder) -> None:
    assert recorded.path.exists()
    with pytest.raises(ConfigError, match=r"algorithm\.routing = 'replay' .*recorded with ignore; use ignore"):
        new("algorithm.routing=replay").survey()


def test_a_resume_finds_the_same_recording_in_another_place(recorded: RunFolder) -> None:
    new().folder().release()
    recorded.path.rename("runs/moved")
    with pytest.raises(ConfigError, match=r"replay\.run = runs/tiny: runs/tiny is not a run folder"):
        Preparation.resumed(RUN, [], []).folder()
    with Preparation.resumed(RUN, [], ["replay.run=runs/moved"]).folder() as folder:
        assert load_config([str(folder.config)]).config.replay.run == "runs/moved"


def test_a_resume_with_another_recording_or_an_older_copy_is_refused(recorded: RunFolder) -> None:
    new().folder().release()
    run = read_json(recorded.run_json)
    recorded.run_json.write_text(json.dumps({**run, "run_id": "another"}))
    with pytest.raises(IntegrityError, match="is the run another, and this run trains on groups of"):
        Preparation.resumed(RUN, [], []).folder()
    recorded.run_json.write_text(json.dumps(run))
    for file in recorded.path.glob("ledger.sqlite*"):
        file.unlink()
    with closing(Ledger.create(recorded.ledger, rules(), run_id=run["run_id"])) as ledger:
        extend(ledger, 3)
    with pytest.raises(IntegrityError, match=r"expected 4 trained steps, which this run began with, got 3"):
        Preparation.resumed(RUN, [], []).folder()


def test_a_resume_makes_no_replay_of_a_run_nor_the_reverse(recorded: RunFolder) -> None:
    new().folder().release()
    with pytest.raises(ConfigError, match=r"replay\.run = null: runs/other trains on recorded groups"):
        Preparation.resumed(RUN, [], ["replay.run=null"]).folder()
    with pytest.raises(ConfigError, match="the run in runs/tiny samples its groups"):
        Preparation.resumed(RECORDED, [], [f"replay.run={RUN}"]).folder()


def test_the_embedded_model_need_not_be_built_for_a_look(recorded: RunFolder) -> None:
    stand_in = EMBEDDED_FOLDER.rename("elsewhere")
    preparation = replace(new(), existing=None)
    assert preparation.check(stand_in).notes != ()
