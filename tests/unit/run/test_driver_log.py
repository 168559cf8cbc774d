"""The driver's lines in a file that other hosts can read."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r1ray.run.driver_log import LoggedView, log_view
from r1ray.run.json_view import JsonView
from r1ray.run.view import PlainView


def view(path: Path, out: io.StringIO) -> LoggedView:
    return LoggedView(
        PlainView(Console(file=out, width=80), 3, lambda: 0.0), log_view(path, total_steps=3, clock=lambda: 0.0)
    )


def test_the_file_has_what_a_plain_view_prints_with_times(tmp_path: Path) -> None:
    out = io.StringIO()
    with view(tmp_path / "driver.log", out) as both:
        both.phase("Ray", 0, 1)
        both.update({"state": "running", "step": 0, "steps": 3})
        both.line("rollout-0 was lost: no answer")
    written = (tmp_path / "driver.log").read_text()
    assert re.sub(r"^\d\d:\d\d:\d\d ", "", written, flags=re.MULTILINE) == out.getvalue()
    assert len(re.findall(r"^\d\d:\d\d:\d\d ", written, flags=re.MULTILINE)) == 3


def test_with_a_run_id_the_file_and_the_terminal_have_json_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "driver.log"
    with LoggedView(JsonView("bus-1", 3), log_view(path, total_steps=3, run_id="bus-1")) as both:
        both.phase("Ray", 0, 1)
        both.line("rollout-0 was lost: no answer")
    for text in (path.read_text(), capsys.readouterr().out):
        found = [json.loads(line) for line in text.splitlines()]
        assert [line["message"] for line in found] == ["Ray ...", "rollout-0 was lost: no answer"]
        assert {(line["run"], line["actor"]) for line in found} == {("bus-1", "driver")}


def test_a_resume_appends(tmp_path: Path) -> None:
    for _ in range(2):
        with view(tmp_path / "driver.log", io.StringIO()) as both:
            both.line("again")
    assert (tmp_path / "driver.log").read_text().count("again") == 2


def test_a_full_disk_costs_lines_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    out = io.StringIO()
    with view(tmp_path / "driver.log", out) as both:
        monkeypatch.setattr(Path, "open", full)
        both.line("no room")
    assert "no room" in out.getvalue()
