"""Logs of a run while they grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.errors import ConfigError
from r1ray.run.folder import RunFolder
from r1ray.run.logs import LogReader, log_names


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "logs").mkdir()
    write(tmp_path, "queue", "a\nb\n")
    write(tmp_path, "rollout-0", "c\n")
    return RunFolder(tmp_path)


def write(run: Path, name: str, text: str) -> None:
    with (run / "logs" / f"{name}.log").open("a") as file:
        file.write(text)


def test_every_process_with_a_log_is_named(folder: RunFolder) -> None:
    assert log_names(folder) == ["queue", "rollout-0"]
    with pytest.raises(ConfigError, match=r"no log of 'rollout-1' in .* did you mean rollout-0"):
        LogReader(folder, "rollout-1", 1)


@pytest.mark.parametrize(("lines", "seen"), [(0, []), (1, ["b"]), (2, ["a", "b"]), (9, ["a", "b"])])
def test_the_last_lines_of_one_process(folder: RunFolder, lines: int, seen: list[str]) -> None:
    reader = LogReader(folder, "queue", lines)
    assert list(reader.look()) == [("queue", line) for line in seen]
    assert list(reader.look()) == []


@pytest.mark.parametrize("lines", [1, 3, 4000])
def test_long_logs_are_read_from_their_end(folder: RunFolder, lines: int) -> None:
    text = [f"{i} {'x' * (i % 90)}" for i in range(5000)]
    write(folder.path, "long", "\n".join(text) + "\n")
    assert [line for _, line in LogReader(folder, "long", lines).look()] == text[-lines:]


def test_what_is_added_is_shown_by_whole_lines_and_new_logs_from_their_start(folder: RunFolder) -> None:
    reader = LogReader(folder, None, 0)
    assert list(reader.look()) == []
    write(folder.path, "queue", "d\ne")
    write(folder.path, "rollout-1", "f\n")
    assert list(reader.look()) == [("queue", "d"), ("rollout-1", "f")]
    write(folder.path, "queue", "e\n")
    assert list(reader.look()) == [("queue", "ee")]
    write(folder.path, "queue", "killed here")
    assert list(reader.look()) == []
    assert list(reader.rest()) == [("queue", "killed here")]


def test_bytes_that_are_no_text_do_not_end_it(folder: RunFolder) -> None:
    (folder.logs / "queue.log").write_bytes(b"\xff\xfe\n")
    assert list(LogReader(folder, "queue", 5).look()) == [("queue", "\ufffd\ufffd")]
