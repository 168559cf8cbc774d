"""Log lines as JSON: whole lines, several threads, and where the process is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from r1ray.telemetry import logs
from r1ray.telemetry.logs import JsonStream, LogTarget


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_position", {"step": None, "version": None})


def target(folder: Path) -> LogTarget:
    return LogTarget(path=folder / "a.log", run_id="bus-1", actor="rollout-0", as_json=True)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "a.log").read_text().splitlines()]


def test_a_line_has_run_actor_step_and_version(tmp_path: Path) -> None:
    with (tmp_path / "a.log").open("w") as file:
        stream = JsonStream(file.fileno(), target(tmp_path), "stderr")
        print("before", file=stream)
        logs.at(step=3, version=2)
        print("naïve \ud800 \x1b[31m", file=stream)
        logs.at(version=4)
        print("after", file=stream)
    first, second, third = lines(tmp_path)
    assert (first["run"], first["actor"], first["stream"]) == ("bus-1", "rollout-0", "stderr")
    assert (first["step"], first["version"], first["message"]) == (None, None, "before")
    assert (second["step"], second["version"], second["message"]) == (3, 2, "naïve \ud800 \x1b[31m")
    assert (third["step"], third["version"]) == (3, 4)


def test_a_line_written_in_pieces_is_one_object_and_an_empty_line_none(tmp_path: Path) -> None:
    with (tmp_path / "a.log").open("w") as file:
        stream = JsonStream(file.fileno(), target(tmp_path), "stdout")
        for piece in ("one", " line", "\n", "\n", "two\nthree\nunfinished"):
            stream.write(piece)
        assert [line["message"] for line in lines(tmp_path)] == ["one line", "two", "three"]
        stream.finish()
    assert lines(tmp_path)[-1]["message"] == "unfinished"


def test_lines_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    with (tmp_path / "a.log").open("w") as file:
        stream = JsonStream(file.fileno(), target(tmp_path), "stdout")

        def talk(name: str) -> None:
            for _ in range(200):
                stream.write(f"{name * 50}\n")

        threads = [threading.Thread(target=talk, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(line["message"] for line in lines(tmp_path)) == sorted(
        name * 50 for name in "abc" for _ in range(200)
    )


PROGRAM = """
import logging, os, sys
from pathlib import Path
from r1ray.telemetry.logs import LogTarget, redirect
redirect(LogTarget(path=Path(sys.argv[1]), run_id="r", actor="queue", as_json=sys.argv[2] == "json"))
print("printed")
logging.getLogger("lib").warning("logged")
os.write(2, b"native\\n")
raise SystemExit("end")
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_process_sends_what_it_prints_and_logs_to_its_file(form: str, tmp_path: Path) -> None:
    log = tmp_path / "queue.log"
    done = subprocess.run([sys.executable, "-c", PROGRAM, log, form], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
    written = log.read_text().splitlines()
    if form == "text":
        assert sorted(written) == ["end", "logged", "native", "printed"]
        return
    assert "native" in written  # native code's lines stay as they are
    found = [json.loads(line) for line in written if line != "native"]
    assert [line["message"] for line in found] == ["printed", "logged", "end"]
    assert {line["actor"] for line in found} == {"queue"}
