"""Checks of the run folder's storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.preflight import storage as checks
from r1ray.preflight.storage import Marker, existing_folder, file_system, marker, shared, storage
from tests.unit.preflight.doctor_support import healthy


def test_storage_that_works_leaves_nothing_behind(tmp_path: Path) -> None:
    (found,) = storage(healthy(), tmp_path, speed_bytes=4096)
    assert (found.verdict, "write, fsync, rename and lock work" in found.detail) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_slow_storage_is_a_warning_that_says_what_it_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_write", lambda path, nbytes: float(path.write_bytes(b"")) + 10.0)
    (found,) = storage(healthy(), tmp_path)
    assert (found.verdict, "50 minutes" in found.meaning) == ("warning", True), found


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, nbytes: int) -> float:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks, "_write", refuse)
    (found,) = storage(healthy(), tmp_path)
    assert (found.verdict, "Permission denied" in found.detail) == ("error", True)


def test_locks_that_keep_nobody_out_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "try_flock", lambda handle, kind: True)
    (found,) = storage(healthy(), tmp_path, speed_bytes=4096)
    assert (found.verdict, "locked again" in found.detail) == ("error", True)


def test_a_node_sees_the_marker_and_its_lock(tmp_path: Path) -> None:
    with marker(tmp_path) as mark:
        assert shared(mark, needed=True).verdict == "ok"
    assert list(tmp_path.iterdir()) == []


def test_other_storage_is_an_error_where_an_actor_writes(tmp_path: Path) -> None:
    absent = Marker(path=str(tmp_path / "none"), content="a")
    assert [shared(absent, needed=needed).verdict for needed in (True, False)] == ["error", "warning"]
    other = tmp_path / "marker"
    other.write_text("b")
    found = shared(Marker(path=str(other), content="a"), needed=True)
    assert (found.verdict, "holds other files" in found.detail) == ("error", True)


def test_a_lock_that_does_not_reach_the_node_is_a_warning(tmp_path: Path) -> None:
    unlocked = tmp_path / "marker"
    unlocked.write_text("a")
    found = shared(Marker(path=str(unlocked), content="a"), needed=True)
    assert (found.verdict, "does not reach" in found.detail) == ("warning", True)


def test_the_file_system_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    mounts = "/dev/root / ext4 rw 0 0\nserver:/x /shared nfs4 rw 0 0\nserver:/y /shared/my\\040runs fuse.s3 rw 0 0"
    system = healthy(texts={"/proc/mounts": mounts})
    folders = ("/shared/runs", "/shared/my runs/a", "/sharedx", "/")
    assert [file_system(system, Path(folder)) for folder in folders] == ["nfs4", "fuse.s3", "ext4", "ext4"]
    assert existing_folder(tmp_path / "a" / "b") == tmp_path
