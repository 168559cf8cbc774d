"""A full disk: records wait in memory, folders are whole or absent, and the failure has its name."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from learner.files import write_aside
from r1ray.errors import DiskFull
from r1ray.run.metrics import MetricsWriter, read_events, read_metrics
from r1ray.run.trackers import TensorBoard
from r1ray.util.files import is_disk_full


class SmallDisk:
    """A file on a disk with `room` bytes."""

    def __init__(self, path: Path, room: int, code: int) -> None:
        self._path = path
        self.room = room
        self._code = code

    def write(self, data: bytearray) -> int:
        fits = bytes(data[: self.room])
        if not fits:
            raise OSError(self._code, os.strerror(self._code))
        with self._path.open("ab") as file:
            file.write(fits)
        self.room -= len(fits)
        return len(fits)

    def close(self) -> None: ...


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_records_wait_for_room_and_none_is_torn_or_twice(tmp_path: Path, code: int) -> None:
    with MetricsWriter(tmp_path, tensorboard=False, clock=lambda: 0.0) as writer:
        writer.event("started")
        lines = writer._files["events.jsonl"]
        lines._file.close()
        disk = SmallDisk(tmp_path / "events.jsonl", room=10, code=code)  # not even one line
        lines._file = disk  # type: ignore[assignment]
        writer.event("paused")
        writer.event("still paused")
        assert [e["kind"] for e in read_events(tmp_path)] == ["started"]
        writer.step(0, {"reward/mean": 1.0})  # another file, whose disk has room
        assert len(read_metrics(tmp_path)) == 1
        disk.room = 10**6
        writer.event("resumed")
        assert [e["kind"] for e in read_events(tmp_path)] == ["started", "paused", "still paused", "resumed"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_folder_that_does_not_fit_leaves_nothing_and_says_so(tmp_path: Path, error: Exception) -> None:
    def save() -> None:
        with write_aside(tmp_path / "step_000002") as aside:
            (aside / "manifest.json").write_text("{}")
            raise error

    with pytest.raises(DiskFull, match=r"step_000002.*free space"):
        save()
    assert list(tmp_path.iterdir()) == []


def test_points_for_tensorboard_wait_for_room(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    opened, kept = [], []
    room = False

    class Writer:
        def add_event(self, event: Any) -> None:
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            kept.append(event.step)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    def reopen() -> Writer:
        opened.append(Writer())
        return opened[-1]

    board.close()
    board._open, board._writer = reopen, None
    board.scalars(1, 0.0, {"reward": 1.0})
    board.scalars(2, 0.0, {"reward": 1.0})
    room = True
    board.scalars(3, 0.0, {"reward": 1.0})
    assert (kept, len(opened)) == ([1, 2, 3], 3)
    board.close()


def test_no_room_and_no_quota_count_as_full() -> None:
    assert is_disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_disk_full(OSError(errno.EIO, "Input/output error"))
    assert not is_disk_full(RuntimeError("out of memory"))


def test_another_failure_of_a_folder_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), write_aside(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "no")
