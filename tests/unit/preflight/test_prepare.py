"""From the command line to a run folder: what is refused leaves nothing behind, what is resumed is the same run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from r1ray.config.identity import config_hash
from r1ray.config.load import load_config
from r1ray.config.uses import Use
from r1ray.errors import ConfigError, IntegrityError
from r1ray.ledger.records import LedgerSettings
from r1ray.ledger.storage import create_file
from r1ray.preflight.placement import Plan
from r1ray.preflight.prepare import EMBEDDED_FOLDER, Preparation
from r1ray.run.folder import FORMAT, RunFolder
from r1ray.run.metrics import read_events
from r1ray.util.files import read_json
from r1ray.util.imports import IMPORT_PATH, import_folders
from r1ray.util.machine import GIB
from tests.unit.data_helpers import write_jsonl
from tests.unit.model_folder import write_model
from tests.unit.preflight.machines import LAPTOP

pytestmark = pytest.mark.usefixtures("here")
RUN = Path("runs/tiny")


def new(*overrides: str) -> Preparation:
    return Preparation.new(["tiny"], overrides)


def resumed(*overrides: str) -> Preparation:
    return Preparation.resumed(RUN, [], overrides)


@pytest.fixture
def stopped() -> RunFolder:
    """A run that was started and has no driver any more."""
    folder = new().folder()
    folder.release()
    return folder


def test_a_new_run_keeps_its_resolved_configuration() -> None:
    preparation = new("run.steps=7")
    with preparation.folder() as folder:
        assert folder.path == RUN
        assert load_config([str(folder.config)]).config == preparation.loaded.config
        assert folder.identity().config_hash == config_hash(preparation.loaded.config)
        assert preparation.loaded.config.model.path == "models/tiny"


def test_what_is_refused_leaves_nothing_behind(here: Path) -> None:
    short = replace(new(), machine=replace(LAPTOP, memory_bytes=2 * GIB))
    with pytest.raises(ConfigError, match=r"this machine has 2\.0 GiB"):
        short.folder()
    with pytest.raises(ConfigError, match="has no GPU"):
        new("learner.num_gpus=1").folder()
    assert not (here / "runs").exists()


def test_a_second_start_is_refused_unless_fresh(stopped: RunFolder) -> None:
    begun = stopped.identity()
    with pytest.raises(ConfigError, match="contains a run already"):
        new().folder()
    with new().folder(fresh=True) as folder:
        assert RunFolder.open(Path("runs/tiny.1")).identity() == begun
        assert folder.identity().run_id != begun.run_id


def test_a_resume_is_the_same_run_with_what_may_change_changed(stopped: RunFolder) -> None:
    begun = stopped.identity()
    with resumed("run.steps=80", "deadlines.rpc_s=5", "learner.ranks=2").folder() as folder:
        assert folder.identity() == begun
        assert load_config([str(folder.config)]).config.run.steps == 80
        (event,) = read_events(folder.path)
        assert event["kind"] == "reconfigured"
        assert event["changed"] == {"run.steps": 80, "deadlines.rpc_s": 5.0, "learner.ranks": 2}


def test_a_resume_without_changes_writes_nothing(stopped: RunFolder) -> None:
    before = stopped.config.stat().st_mtime_ns
    with resumed().folder() as folder:
        assert folder.config.stat().st_mtime_ns == before
        assert read_events(folder.path) == []


def test_the_overlay_that_a_run_was_started_with_may_be_named_again(stopped: RunFolder) -> None:
    with Preparation.resumed(RUN, ["tiny"], ["run.steps=80"]).folder() as folder:
        (event,) = read_events(folder.path)
        assert event["changed"] == {"run.steps": 80}
    assert load_config([str(stopped.config)]).config.model.path == "models/tiny"


def test_a_resume_that_would_be_another_run_is_refused_by_key(stopped: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.group_size = 4 \(command line\): the run was started with 8"):
        resumed("rollout.group_size=4")
    assert stopped.holder() is None


def _another_tokenizer(folder: RunFolder) -> None:
    (EMBEDDED_FOLDER / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')


def _other_weights(folder: RunFolder) -> None:
    with (EMBEDDED_FOLDER / "model.safetensors").open("ab") as weights:
        weights.write(b"trained")


def _another_size(folder: RunFolder) -> None:
    shutil.rmtree(EMBEDDED_FOLDER)
    write_model(EMBEDDED_FOLDER, num_hidden_layers=4)


def _another_format(folder: RunFolder) -> None:
    folder.run_json.write_text(folder.run_json.read_text().replace(f'"format": {FORMAT}', '"format": 7'))


def _foreign_database(folder: RunFolder) -> None:
    with closing(sqlite3.connect(folder.ledger)) as db:
        db.execute("CREATE TABLE birds (name TEXT)")


def _ledger_of_another_run(folder: RunFolder) -> None:
    create_file(
        folder.ledger, "another", LedgerSettings(groups_per_step=1, max_staleness=0, lease_timeout_s=1, max_attempts=1)
    )


def _lost_ledger(folder: RunFolder) -> None:
    (folder.checkpoints / "step_000001").mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_another_tokenizer, r"vocabulary hash .* started with"),
        (_other_weights, r"model in .* its sizes or weights changed"),
        (_another_size, r"model in .* its sizes or weights changed"),
        (_another_format, r"expected run-folder format \d+, got 7 .*use the r1ray that began the run"),
        (_foreign_database, "SQLite file of another program"),
        (_ledger_of_another_run, "belongs to run 'another'"),
        (_lost_ledger, "ledger.sqlite is missing, but there are checkpoints"),
    ],
)
def test_a_resume_of_what_is_not_this_run_says_why_and_writes_nothing(
    stopped: RunFolder, damage: Callable[[RunFolder], None], message: str
) -> None:
    damage(stopped)
    before = contents(stopped.path)
    with pytest.raises(IntegrityError, match=message):
        resumed("run.steps=80").folder()
    assert contents(stopped.path) == before
    assert stopped.holder() is None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- what the sources hold ------------------------------------------------------------------------------------------

SOURCES = "data.train=[{name: sums, kind: jsonl, path: sums.jsonl}, {name: tasks, kind: jsonl, path: tasks.jsonl}]"
COMMANDS: list[Use] = ["train", "sample"]


@pytest.fixture(params=COMMANDS)
def on_files(request: pytest.FixtureRequest) -> tuple[RunFolder, Use]:
    """A stopped run of that command on two files of 100 and 20 rows."""
    for name, count in (("sums", 100), ("tasks", 20)):
        write_jsonl(Path(f"{name}.jsonl"), [{"prompt": f"{name} {i}", "answer": str(i)} for i in range(count)])
    folder = Preparation.new(["tiny"], [SOURCES], request.param).folder()
    folder.release()
    return folder, request.param


def grow() -> None:
    with Path("sums.jsonl").open("a") as file:
        file.writelines(json.dumps({"prompt": f"more {i}", "answer": ""}) + "\n" for i in range(50))


def test_a_resume_on_the_same_files_goes_on(on_files: tuple[RunFolder, Use]) -> None:
    stopped, use = on_files
    Path("sums.jsonl").touch()
    with Preparation.resumed(RUN, [], [], use).folder() as folder:
        assert {s: f["rows"] for s, f in read_json(folder.data)["data.train"].items()} == {"sums": 100, "tasks": 20}
        assert read_events(stopped.path) == []


def _rows_behind(path: Path) -> None:
    grow()


def _another_answer(path: Path) -> None:
    path.write_text(path.read_text().replace('"answer": "50"', '"answer": "51"'))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rows_behind, r"started with: data\.train sums rows 100, now 150; data\.train sums digest \w+, now \w+\. Use"),
        (_another_answer, r"started with: data\.train sums digest \w+, now \w+\. Use"),
    ],
)
def test_a_resume_on_other_files_is_refused_and_writes_nothing(
    on_files: tuple[RunFolder, Use], change: Callable[[Path], None], message: str
) -> None:
    stopped, use = on_files
    change(Path("sums.jsonl"))
    before = contents(stopped.path)
    with pytest.raises(IntegrityError, match=message):
        Preparation.resumed(RUN, [], ["deadlines.rpc_s=5"], use).folder()
    assert contents(stopped.path) == before
    assert stopped.holder() is None


def test_a_run_without_a_record_of_its_files_says_so_and_keeps_one(
    on_files: tuple[RunFolder, Use], capsys: pytest.CaptureFixture[str]
) -> None:
    stopped, use = on_files
    stopped.data.unlink()
    for _ in range(2):
        Preparation.resumed(RUN, [], [], use).folder().release()
    assert [event["kind"] for event in read_events(stopped.path)] == ["data_unrecorded"]
    assert capsys.readouterr().err.count("warning: runs/tiny has no record of its data") == 1
    grow()
    with pytest.raises(IntegrityError, match="rows 100, now 150"):
        Preparation.resumed(RUN, [], [], use).folder()


def test_what_fine_tuning_has_found_itself_is_kept_and_compared() -> None:
    write_jsonl(Path("chats.jsonl"), [{"prompt": "a", "response": "b"}])
    found = {"conversations": 10, "held_out": {"exam": 2}}
    source = "data.train=[{name: chats, kind: jsonl, path: chats.jsonl}]"
    Preparation.new(["tiny"], [source, "data.evaluation=[]"], "sft").folder(data=found).release()
    assert read_json(RUN / "data.json") == found
    other = {**found, "held_out": {"exam": 3}}
    with pytest.raises(IntegrityError, match=r"the conversations differ .* started with: held_out exam 2, now 3\. Use"):
        Preparation.resumed(RUN, [], [], "sft").folder(data=other)
    Preparation.resumed(RUN, [], [], "sft").folder(data=found).release()


def test_synthetic_tasks_need_no_record(stopped: RunFolder) -> None:
    assert not stopped.data.exists()
    with resumed().folder() as folder:
        assert read_events(folder.path) == []


def test_a_resume_of_a_run_that_goes_on_is_refused() -> None:
    with new().folder():
        with pytest.raises(ConfigError, match="in use by process"):
            resumed().folder()


def test_a_moved_run_can_be_resumed(stopped: RunFolder) -> None:
    moved = stopped.path.rename("moved")
    with Preparation.resumed(moved, [], []).folder() as folder:
        assert load_config([str(folder.config)]).config.run.dir == "moved"


def test_a_plan_tells_configuration_placement_and_memory() -> None:
    preparation = new("run.steps=7")
    text = preparation.describe(preparation.plan())
    assert "  steps: 7\n" in text
    assert "1 x learner rank" in text
    assert "Fits this machine." in text


def test_another_folder_takes_the_place_of_a_model_that_is_not_built(here: Path) -> None:
    stand_in = EMBEDDED_FOLDER.rename("elsewhere")
    assert new().takes_embedded_model
    assert not new("model.path=models/other").takes_embedded_model
    planned: list[Plan] = []
    assert [new().check(stand_in, planned.append)] == planned
    with pytest.raises(ConfigError, match="hf download"):
        new().check()


def test_a_plan_that_does_not_fit_is_shown_before_it_is_refused() -> None:
    planned: list[Plan] = []
    with pytest.raises(ConfigError, match=r"this machine has 2\.0 GiB"):
        replace(new(), machine=replace(LAPTOP, memory_bytes=2 * GIB)).check(planned=planned.append)
    assert "Does not fit: model.path" in planned[0].to_text()


def _a_run(folder: Path) -> None:
    new().folder().release()


def _a_file(folder: Path) -> None:
    folder.parent.mkdir()
    folder.touch()


def _other_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").touch()


def _parent_is_a_file(folder: Path) -> None:
    folder.parent.touch()


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (_a_run, "contains a run already"),
        (_a_file, "is a file"),
        (_other_files, "thesis.tex"),
        (_parent_is_a_file, "runs is a file"),
    ],
)
def test_a_run_folder_is_refused_alike_with_and_without_a_start(before: Callable[[Path], None], message: str) -> None:
    before(RUN)
    there = sorted(Path().rglob("*"))
    with pytest.raises(ConfigError, match=message) as looked:
        new().check_folder()
    with pytest.raises(ConfigError) as started:
        new().folder()
    assert str(looked.value) == str(started.value)
    assert sorted(Path().rglob("*")) == there


def test_a_run_folder_in_use_is_refused_without_a_start() -> None:
    with new().folder():
        for preparation, fresh in ((new(), False), (new(), True), (resumed(), False)):
            with pytest.raises(ConfigError, match="in use by process"):
                preparation.check_folder(fresh=fresh)


def test_a_resume_looks_for_modules_where_the_start_did(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine").mkdir()
    Path("mine/base.yaml").write_text("run: {steps: 9}\n")
    Path("mine/own.yaml").write_text("extends: [tiny, base.yaml]\n")
    Preparation.new(["mine/own.yaml"], [f"model.path={here / EMBEDDED_FOLDER}"]).folder().release()
    assert import_folders() == [str(here / "mine")]
    monkeypatch.setenv(IMPORT_PATH, "")
    monkeypatch.chdir("mine")
    Preparation.resumed(here / RUN, [], [])
    assert import_folders() == [str(here / "mine")]
