"""The run folder: its lock, what a failed start leaves behind, and how other versions and other runs are refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.errors import ConfigError, IntegrityError
from r1ray.run.folder import FORMAT, RunFolder
from r1ray.run.identity import RunIdentity
from r1ray.util.files import read_json, write_atomic

IDENTITY = RunIdentity.new(vocab_hash="v", config_hash="c", model_hash="m")

HOLD = """
import sys
from pathlib import Path
from r1ray.run.folder import RunFolder
folder = RunFolder.open(Path(sys.argv[1]))
folder.lock()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run", "run: {}\n", IDENTITY) as made:
        yield made


@pytest.fixture
def other_driver(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `folder`."""
    folder.release()
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.communicate(timeout=10)


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_new_run_is_complete_locked_and_can_be_opened(folder: RunFolder) -> None:
    assert folder.config.read_text() == "run: {}\n"
    assert RunFolder.open(folder.path).identity() == IDENTITY
    holder = RunFolder.open(folder.path).holder()
    assert holder is not None
    assert holder.pid == os.getpid()
    assert str(os.getpid()) in str(holder)


def test_a_run_is_readable_by_its_user_only(folder: RunFolder) -> None:
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_looking_at_the_holder_does_not_free_the_lock(folder: RunFolder) -> None:
    for _ in range(3):
        assert RunFolder.open(folder.path).holder() is not None


def test_a_released_folder_has_no_holder_and_can_be_locked_again(folder: RunFolder) -> None:
    folder.release()
    assert folder.holder() is None
    folder.lock()
    assert folder.holder() is not None


def test_a_folder_in_use_names_the_process_and_nothing_changes(
    folder: RunFolder, other_driver: subprocess.Popen[str]
) -> None:
    before = files(folder.path)
    for attempt in (
        lambda: RunFolder.create(folder.path, "other", IDENTITY),
        folder.lock,
        lambda: RunFolder.set_aside(folder.path),
    ):
        with pytest.raises(ConfigError, match=f"in use by process {other_driver.pid} on") as caught:
            attempt()
        assert caught.value.exit_code == 2
    assert files(folder.path) == before


def test_the_lock_of_a_killed_driver_is_free(folder: RunFolder, other_driver: subprocess.Popen[str]) -> None:
    other_driver.kill()
    other_driver.wait(timeout=10)
    folder.lock()


def test_a_run_is_not_overwritten_and_the_message_says_how_to_continue(folder: RunFolder) -> None:
    folder.release()
    before = files(folder.path)
    with pytest.raises(ConfigError, match=r"contains a run already: continue it with `r1ray train --resume"):
        RunFolder.create(folder.path, "other", IDENTITY)
    assert files(folder.path)["config.yaml"] == before["config.yaml"]
    assert folder.holder() is None


def test_what_a_start_that_died_left_is_used_again(folder: RunFolder) -> None:
    folder.release()
    folder.run_json.unlink()
    with pytest.raises(ConfigError, match="is not a run folder"):
        RunFolder.open(folder.path)
    with RunFolder.create(folder.path, "again", IDENTITY) as again:
        assert again.config.read_text() == "again"


def test_other_peoples_files_are_not_written_among(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="contains other files"):
        RunFolder.create(tmp_path, "", IDENTITY)
    assert list(files(tmp_path)) == ["thesis.tex"]
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder.create(tmp_path / "thesis.tex", "", IDENTITY)


def test_set_aside_takes_the_first_free_name(folder: RunFolder) -> None:
    folder.release()
    folder.path.with_name("run.1").mkdir()
    assert RunFolder.set_aside(folder.path) == folder.path.with_name("run.2")
    assert RunFolder.open(folder.path.with_name("run.2")).identity() == IDENTITY
    assert RunFolder.set_aside(folder.path) is None


@pytest.mark.parametrize("found", [1, FORMAT + 1, None])
def test_another_format_is_refused_by_name_and_left_as_it_was(folder: RunFolder, found: int | None) -> None:
    raw = read_json(folder.run_json)
    folder.run_json.write_text(json.dumps({**raw, "format": found, "r1ray": "0.0.9"}))
    folder.release()
    before = files(folder.path)
    message = (
        rf"run: expected run-folder format {FORMAT}, got {found} \(written by r1ray 0\.0\.9, .*\): "
        "use the r1ray that began the run, or begin a new one; `--fresh` keeps this folder"
    )
    for attempt in (lambda: RunFolder.open(folder.path), lambda: RunFolder.create(folder.path, "", IDENTITY)):
        with pytest.raises(IntegrityError, match=message):
            attempt()
    assert {**before, "lock": b""} == {**files(folder.path), "lock": b""}
    assert RunFolder.set_aside(folder.path) == folder.path.with_name("run.1")


@pytest.mark.parametrize("text", ["", "[]", f'{{"format": {FORMAT}}}', f'{{"format": {FORMAT}, "surprise": 2}}'])
def test_a_damaged_run_json_is_told(folder: RunFolder, text: str) -> None:
    folder.run_json.write_text(text)
    with pytest.raises(IntegrityError, match=r"run\.json"):
        RunFolder.open(folder.path)


def test_status_is_replaced_whole_and_is_json_whatever_the_numbers(folder: RunFolder) -> None:
    folder.write_status({"step": 1, "metrics": {"train/loss": float("nan")}})
    folder.write_status({"step": 2, "metrics": {"train/loss": float("nan")}})
    assert json.loads(folder.status.read_text(), parse_constant=pytest.fail)["step"] == 2


def test_a_write_that_fails_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    write_atomic(target, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new")
    assert files(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize(
    "command", [["status"], ["verify"], ["inspect"], ["report"], ["export"], ["train", "--resume"]]
)
def test_every_command_refuses_an_older_run_by_its_format(folder: RunFolder, command: list[str]) -> None:
    folder.run_json.write_text(json.dumps({**read_json(folder.run_json), "format": 1, "r1ray": "0.0.9"}))
    folder.release()
    more = [str(folder.path.with_name("out"))] if command == ["export"] else []
    result = CliRunner().invoke(build_app(), [*command, str(folder.path), *more])
    assert isinstance(result.exception, IntegrityError), result.output
    assert f"expected run-folder format {FORMAT}, got 1 (written by r1ray 0.0.9" in str(result.exception)
    assert result.exception.exit_code == 3


@pytest.mark.parametrize("writes", range(4))
def test_a_creation_that_found_no_room_can_be_repeated(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.yaml, data.json, imports.json, run.json: the disk is full at each of them."""
    left = [writes]

    def small_disk(path: Path, data: bytes) -> None:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        left[0] -= 1
        write_atomic(path, data)

    records = {"data.json": {"a": 1}, "imports.json": {"folders": []}}
    with monkeypatch.context() as disk:
        disk.setattr("r1ray.run.folder.write_atomic", small_disk)
        with pytest.raises(OSError, match="No space left"):
            RunFolder.create(tmp_path / "run", "run: {}\n", IDENTITY, records)
    with RunFolder.create(tmp_path / "run", "run: {}\n", IDENTITY, records) as made:
        assert read_json(made.data) == {"a": 1}


def test_an_abandoned_run_can_be_started_again(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "run: {}\n", IDENTITY) as made:
        made.ledger.write_bytes(b"half")
        (made.logs / "ray.log").touch()
        made.abandon()
        assert [entry.name for entry in made.path.iterdir()] == ["lock"]
        assert made.holder() is not None
    RunFolder.create(tmp_path / "run", "run: {}\n", IDENTITY).release()
