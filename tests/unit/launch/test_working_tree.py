"""What of a working tree goes to the cluster."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml

from r1ray.config.sources import CONF_DIR
from r1ray.errors import ConfigError
from r1ray.launch import working_tree
from r1ray.launch.working_tree import AT_THE_TOP, EXCLUDED, pack


def write(tree: Path, *names: str, size: int = 1) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"x" * size)


def test_everything_but_what_runs_and_tools_make(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    kept = ("my.yaml", "own/rewards.py", "own/models/a.py", "own/runs/b.py", ".env.example")
    write(tree, *kept, ".git/HEAD", ".venv/bin/python", "runs/a/run.json", "models/m/w", "own/__pycache__/rewards.pyc")
    assert pack(tree, tmp_path / "tree.zip") == len(kept)
    with zipfile.ZipFile(tmp_path / "tree.zip") as packed:
        assert sorted(packed.namelist()) == sorted(kept)


def test_the_same_tree_gives_the_same_archive(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree, "a.py")
    (tree / "a.py").chmod(0o755)
    pack(tree, tmp_path / "1.zip")
    (tree / "a.py").touch()
    pack(tree, tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.getinfo("a.py").external_attr >> 16 == 0o755


@pytest.mark.parametrize(("limit", "value"), [("MAX_FILE_MIB", 0), ("MAX_TREE_MIB", 0)])
def test_large_files_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(working_tree, limit, value)
    write(tmp_path / "tree", "small.py")
    write(tmp_path / "tree", "data/large.jsonl", size=3 << 20)
    with pytest.raises(ConfigError, match=r"the largest (files )?are data/large\.jsonl \(3 MiB\)"):
        pack(tmp_path / "tree", tmp_path / "tree.zip")
    assert not (tmp_path / "tree.zip").exists()


@pytest.mark.parametrize("file", [CONF_DIR.parent / "cluster.yaml", CONF_DIR / "clusters" / "on-premise.yaml"])
def test_what_ray_up_leaves_out_is_left_out_too(file: Path) -> None:
    left_out = yaml.safe_load(file.read_text())["rsync_exclude"]
    assert {name.removeprefix("**/").removeprefix("/") for name in left_out} <= set(EXCLUDED)
    assert {name for name in left_out if name.strip("/") in AT_THE_TOP} == {"/runs", "/models"}  # not r1ray/models
