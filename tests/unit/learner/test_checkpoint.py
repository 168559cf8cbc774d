"""Checkpoint folders without a learner: whole or absent, found, passed over, pruned."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learner import checkpoint
from learner.checkpoint import prune
from learner.files import ASIDE, write_aside
from learner.shard_file import read_tensors
from learner.shards import write_shards
from r1ray.config.schema import Config
from r1ray.errors import DiskFull, IntegrityError
from r1ray.run.checkpoints import Found, defect, find_latest
from tests.unit.rank_support import FakeEngine, alone

SHAPES = {"weight/w": (4,), "exp_avg/w": (4,)}


def engine_at(step: int) -> FakeEngine:
    engine = FakeEngine(0, 1, SHAPES, sharded=False)
    engine.fill(step)
    return engine


def save(folder: Path, step: int) -> Path:
    path = folder / f"step_{step:06d}"
    checkpoint.save(
        path,
        engine=engine_at(step),
        reference=None,
        policy_version=step,
        rng=torch.zeros(2, 5, dtype=torch.uint8),
        run_id="run-1",
        config=Config(),
        ranks=alone(),
    )
    return path


def load(folder: Path, run_id: str = "run-1") -> tuple[checkpoint.Loaded, FakeEngine]:
    engine = FakeEngine(0, 1, SHAPES, sharded=False)
    found = checkpoint.load_latest(folder, engine=engine, reference=None, run_id=run_id, ranks=alone())
    return found, engine


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_saved_is_whole_and_says_what_it_is(tmp_path):
    path = save(tmp_path, 20)
    assert names(path) == ["manifest.json", "rng.safetensors", "state-00001.safetensors", "trainer.json"]
    assert defect(path) is None
    assert json.loads((path / "trainer.json").read_text()) == {
        "format": 3,
        "run_id": "run-1",
        "policy_version": 20,
        "optimizer_steps": 20,
        "reference_version": None,
        "config": json.loads(json.dumps(asdict(Config()))),
    }
    stored = load_file(path / "state-00001.safetensors")  # any program reads it
    assert {name: values.tolist() for name, values in stored.items()} == {
        name: values.tolist() for name, values in engine_at(20).values.items()
    }


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("learner.checkpoint.fingerprints", full)
    with pytest.raises(DiskFull, match="no room for"):
        save(tmp_path, 1)
    assert names(tmp_path) == []


def test_an_existing_checkpoint_is_not_touched(tmp_path):
    path = save(tmp_path, 1)
    before = (path / "manifest.json").stat().st_mtime_ns
    with pytest.raises(IntegrityError, match="exists already"):
        save(tmp_path, 1)
    assert (path / "manifest.json").stat().st_mtime_ns == before


def test_a_torn_checkpoint_of_the_same_step_is_replaced(tmp_path):
    (save(tmp_path, 1) / "state-00001.safetensors").write_bytes(b"torn")
    assert defect(save(tmp_path, 1)) is None


def test_files_are_on_the_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    """fsync of every file and of the folder, then the rename, then fsync of the parent."""
    events = []
    monkeypatch.setattr("learner.files.fsync", lambda path: events.append(path.name))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, target: (events.append("rename"), rename(self, target)))
    with write_aside(tmp_path / "x") as folder:
        (folder / "a").write_text("1")
    assert events == ["a", folder.name, "rename", tmp_path.name]
    assert folder.name.startswith(f"{ASIDE}x.")


KILLED = """
import os, sys
from pathlib import Path
from learner.files import write_aside
with write_aside(Path(sys.argv[1])) as folder:
    (folder / "state").write_text("half")
    os._exit(9)
"""


def test_a_process_that_dies_while_writing_leaves_no_checkpoint(tmp_path):
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "step_000002")], check=False, timeout=60)
    assert died.returncode == 9
    assert [name.rpartition(".")[0] for name in names(tmp_path)] == [f"{ASIDE}step_000002"]
    assert find_latest(tmp_path).path is None
    save(tmp_path, 2)  # the leftover is not in the way
    assert names(tmp_path) == ["step_000002"]


@pytest.mark.parametrize("died", [False, True])
def test_what_was_there_is_there_again_after_a_failure(tmp_path, died):
    """Also where an earlier process died between setting it aside and putting the new one in its place."""
    target = tmp_path / "final"
    with write_aside(target) as folder:
        (folder / "model").write_text("old")
    if died:
        target.rename(tmp_path / f"{ASIDE}old-final")
    with pytest.raises(FileNotFoundError), write_aside(target) as folder:
        (folder / "absent").read_text()
    assert names(tmp_path) == ["final"]
    assert (target / "model").read_text() == "old"


# -- finding --------------------------------------------------------------------------------------------------------


def tear_flip(path):
    file = path / "state-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def tear_cut(path):
    os.truncate(path / "state-00001.safetensors", 50)


def tear_missing(path):
    (path / "trainer.json").unlink()


def tear_no_manifest(path):
    (path / "manifest.json").unlink()


def tear_other_format(path):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 4}))


@pytest.mark.parametrize(
    ("tear", "why"),
    [
        (tear_flip, "state-00001.safetensors does not match the manifest"),
        (tear_cut, "state-00001.safetensors does not match the manifest"),
        (tear_missing, "trainer.json is missing"),
        (tear_no_manifest, "manifest.json cannot be read"),
        (tear_other_format, "expected format 2 or 3, got 4"),
    ],
)
def test_a_torn_checkpoint_is_passed_over_by_name_for_the_one_before(tmp_path, tear, why):
    older, newer = save(tmp_path, 5), save(tmp_path, 10)
    assert find_latest(tmp_path) == Found(path=newer, warnings=())
    tear(newer)
    found = find_latest(tmp_path)
    loaded, engine = load(tmp_path)
    assert (found.path, loaded.path, loaded.policy_version) == (older, older, 5)
    assert engine.holds(5)
    assert loaded.warnings == list(found.warnings)
    (warning,) = found.warnings
    assert warning.startswith(f"checkpoint step_000010 skipped: {why}")


@pytest.mark.parametrize("tear", [tear_flip, tear_cut])
def test_if_no_checkpoint_is_complete_a_learner_does_not_start_over(tmp_path, tear):
    tear(save(tmp_path, 5))
    with pytest.raises(IntegrityError, match=r"no checkpoint in .* is complete, nothing was changed: .*step_000005"):
        load(tmp_path)
    assert names(tmp_path) == ["step_000005"]


def test_a_checkpoint_of_another_run_is_refused_by_the_name_of_its_run(tmp_path):
    path = save(tmp_path, 5)
    with pytest.raises(IntegrityError, match=r"step_000005 is of run run-1, not of run-2"):
        load(tmp_path, "run-2")
    found = find_latest(tmp_path, run_id="run-2")
    assert (found.path, found.warnings) == (None, ("checkpoint step_000005 skipped: expected run run-2, got run-1",))
    assert find_latest(tmp_path, run_id="run-1").path == path


def test_a_folder_without_checkpoints_has_none(tmp_path):
    (tmp_path / "other").mkdir()
    assert find_latest(tmp_path) == Found(path=None, warnings=())
    assert find_latest(tmp_path / "absent") == Found(path=None, warnings=())
    for folder in (tmp_path, tmp_path / "absent"):
        assert load(folder)[0] == checkpoint.Loaded(path=None, policy_version=0, rng=[], warnings=[])


# -- pruning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 2, 3, 4, 5, 6])
def test_prune_keeps_as_many_as_it_is_told(tmp_path, keep):
    """However many there are: pruned after every save, as a run does it."""
    for n in range(1, 7):
        save(tmp_path, n)
        prune(tmp_path, keep=keep, keep_every=None)
        assert names(tmp_path) == [f"step_{s:06d}" for s in range(max(1, n + 1 - max(1, keep)), n + 1)]


def test_prune_keeps_every_nth_for_good(tmp_path):
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    assert prune(tmp_path, keep=1, keep_every=20) == ["step_000030", "step_000010"]
    assert names(tmp_path) == ["step_000020", "step_000040"]


def test_prune_counts_whole_ones_only(tmp_path):
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    tear_cut(tmp_path / "step_000030")
    prune(tmp_path, keep=2, keep_every=None)
    assert names(tmp_path) == ["step_000020", "step_000040"]


def test_prune_never_removes_the_newest_whole_one(tmp_path):
    """The two newer ones are torn: 10 is all there is."""
    for step in (5, 10, 20, 30):
        save(tmp_path, step)
    tear_cut(tmp_path / "step_000020")
    tear_no_manifest(tmp_path / "step_000030")
    (tmp_path / f"{ASIDE}step_000040").mkdir()
    prune(tmp_path, keep=1, keep_every=None)
    assert names(tmp_path) == ["step_000010", "step_000020", "step_000030"]
    assert find_latest(tmp_path).path == tmp_path / "step_000010"


def test_prune_touches_nothing_where_nothing_is_whole(tmp_path):
    tear_no_manifest(save(tmp_path, 5))
    assert prune(tmp_path, keep=1, keep_every=None) == []
    assert names(tmp_path) == ["step_000005"]


# -- shards and export ----------------------------------------------------------------------------------------------


def test_shards_are_bounded_and_come_back_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("learner.shards.SHARD_BYTES", 40)
    tensors = {"a": torch.arange(8.0), "b": torch.ones(2), "c": torch.zeros(20), "d": torch.full((1,), 7.0)}
    index = write_shards(tmp_path, "model", iter(tensors.items()))
    assert index == {
        "a": "model-00001.safetensors",
        "b": "model-00001.safetensors",
        "c": "model-00002.safetensors",
        "d": "model-00003.safetensors",
    }
    found = dict(read_tensors(sorted(tmp_path.glob("model-*"))))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_a_tensor_is_copied_before_the_next_is_asked_for(tmp_path):
    """ZeRO 3 hands out one buffer after the other and frees them."""

    def stream():
        buffer = torch.ones(3)
        yield "a", buffer
        buffer.fill_(-1)
        yield "b", torch.zeros(3)

    write_shards(tmp_path, "x", stream())
    assert dict(read_tensors([tmp_path / "x-00001.safetensors"]))["a"].tolist() == [1.0, 1.0, 1.0]
