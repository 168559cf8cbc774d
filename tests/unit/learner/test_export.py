"""The exported model, and folders that are written aside."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learner.export import export_model
from learner.files import scratch_beside
from learner.shard_file import read_tensors
from r1ray.errors import DiskFull


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_export_copies_the_tokenizer_byte_by_byte_and_not_the_old_weights(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (source / "tokenizer.json").write_bytes(b'{"odd":   "spacing"}')
    (source / "config.json").write_text('{"model_type": "qwen2", "torch_dtype": "float16"}')
    (source / "model.safetensors").write_bytes(b"old")
    (source / "model.safetensors.index.json").write_text("{}")
    weights = {"w": torch.ones(2, dtype=torch.bfloat16)}
    target = tmp_path / "final"
    export_model(iter(weights.items()), source=source, target=target, writer=True)
    assert names(target) == ["config.json", "model-00001.safetensors", "model.safetensors.index.json", "tokenizer.json"]
    assert (target / "tokenizer.json").read_bytes() == b'{"odd":   "spacing"}'
    assert json.loads((target / "config.json").read_text()) == {"model_type": "qwen2", "dtype": "bfloat16"}
    assert json.loads((target / "model.safetensors.index.json").read_text())["weight_map"] == {
        "w": "model-00001.safetensors"
    }


def test_an_export_replaces_an_older_one(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_text("{}")
    target = tmp_path / "final"
    for value in (1.0, 2.0):
        export_model(iter([("w", torch.full((2,), value))]), source=source, target=target, writer=True)
    assert [(n, t.tolist()) for n, t in read_tensors([target / "model-00001.safetensors"])] == [("w", [2.0, 2.0])]
    assert names(tmp_path) == ["final", "model"]


def test_a_full_disk_leaves_no_collective_to_the_other_ranks_alone(tmp_path, monkeypatch):
    def full(folder, stem, tensors):
        next(tensors)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("learner.export.write_shards", full)
    source = tmp_path / "model"
    source.mkdir()
    weights = iter([(name, torch.ones(1)) for name in "abc"])
    with pytest.raises(DiskFull, match=r"no room for .*final, nothing of it was kept"):
        export_model(weights, source=source, target=tmp_path / "final", writer=True)
    assert list(weights) == []
    assert names(tmp_path) == ["model"]


def test_a_rank_that_does_not_write_takes_part_to_the_end(tmp_path):
    weights = iter([("a", torch.ones(1)), ("b", torch.ones(1))])
    export_model(weights, source=tmp_path, target=tmp_path / "final", writer=False)
    assert list(weights) == []
    assert names(tmp_path) == []


LEFT_BEHIND = """
import os, sys
from pathlib import Path
from learner.files import scratch_beside
with scratch_beside(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("half")
    os._exit(9)
"""


def test_scratch_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path):
    target = tmp_path / "tiny"
    with scratch_beside(target) as living:
        died = subprocess.run([sys.executable, "-c", LEFT_BEHIND, str(target)], check=False, timeout=60)
        assert died.returncode == 9
        assert len(names(tmp_path)) == 2
        with scratch_beside(target) as mine:
            assert names(tmp_path) == sorted([living.name, mine.name])
    assert names(tmp_path) == []
