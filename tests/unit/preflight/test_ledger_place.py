"""Where the ledger would lie: refused on network file systems, and said by a dry run."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.config.load import load_config
from r1ray.config.schema import Config
from r1ray.errors import ConfigError
from r1ray.preflight.ledger_place import describe_ledger, ledger_problems
from r1ray.util import filesystems

MOUNTS = """\
22 1 254:0 / / rw - ext4 /dev/vda1 rw
30 22 0:45 / /shared rw - nfs4 fs-1.efs.amazonaws.com:/ rw
31 22 0:46 / /fast rw - tmpfs tmpfs rw
"""
CLUSTER = "ray.queue_resources={head: 0.01}"


@pytest.fixture(autouse=True)
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "mountinfo"
    text.write_text(MOUNTS)
    monkeypatch.setattr(filesystems, "MOUNTINFO", text)


def config(*overrides: str) -> Config:
    return load_config(["tiny"], overrides).config


def lines(*overrides: str) -> list[str]:
    return [problem.line(None) for problem in ledger_problems(config(*overrides))]


def test_a_run_folder_on_a_network_file_system_needs_a_folder_for_the_ledger(tmp_path: Path) -> None:
    (line,) = lines("run.dir=/shared/runs/a")
    assert line == (
        "run.dir = '/shared/runs/a': holds the ledger and is on nfs4 (fs-1.efs.amazonaws.com:/ at /shared), where "
        "SQLite "
        "cannot be relied on and commits are slow; set run.ledger_dir to a folder on a local disk of the queue's "
        "machine, "
        "or run.ledger_on_network=true"
    )
    assert lines("run.dir=/shared/runs/a", f"run.ledger_dir={tmp_path}") == []
    assert lines("run.dir=/shared/runs/a", "run.ledger_on_network=true") == []
    assert lines(f"run.dir={tmp_path}") == []


def test_a_folder_for_the_ledger_must_be_local_and_writable(tmp_path: Path) -> None:
    (line,) = lines("run.ledger_dir=/shared/ledgers")
    assert line.startswith("run.ledger_dir = '/shared/ledgers': holds the ledger and is on nfs4")
    (tmp_path / "file").touch()
    (line,) = lines(f"run.ledger_dir={tmp_path}/file/x")
    assert "is a file" in line
    with pytest.raises(ConfigError, match=r"run\.ledger_dir.*: is not absolute"):
        config("run.ledger_dir=ledgers")


def test_another_machine_of_the_queue_is_left_to_the_queue() -> None:
    assert lines("run.dir=/shared/runs/a", CLUSTER) == []
    text = describe_ledger(config("run.dir=/shared/runs/a", "run.ledger_dir=~/ledgers", CLUSTER))
    assert text == (
        "Ledger: in ~/ledgers on the queue's machine (ray.queue_resources), which checks its file system at the start; "
        "copied to /shared/runs/a/ledger.copy.sqlite at each checkpoint and every 2m 00s."
    )


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["run.dir=/home/runs/a"], "Ledger: in /home/runs/a, on ext4 (/dev/vda1 at /)."),
        (
            ["run.dir=/fast/a"],
            "Ledger: in /fast/a, on tmpfs (tmpfs at /fast), which is lost with this machine's memory",
        ),
        (
            ["run.dir=/shared/a", "run.ledger_on_network=true"],
            "Ledger: in /shared/a, on nfs4 (fs-1.efs.amazonaws.com:/ at /shared), a network file system",
        ),
    ],
)
def test_a_dry_run_says_where_the_ledger_will_be(overrides: list[str], text: str) -> None:
    assert describe_ledger(config(*overrides)).startswith(text)
