"""Phases of a step, and the trace of a rank."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from learner.profiling import Phases, Profiler
from r1ray.run.profile import BACKWARD, FORWARD

CPU = torch.device("cpu")


def test_phases_count_only_while_a_profile_is_under_way() -> None:
    phases = Phases()
    assert phases(FORWARD) is phases(BACKWARD)  # one context for all, which does nothing
    with phases(FORWARD):
        pass
    phases.start(CPU)
    for _ in range(2):
        with phases(FORWARD):
            torch.ones(10) + 1
    seconds = phases.stop()
    assert seconds[FORWARD] > 0
    assert seconds[BACKWARD] == 0
    assert phases(FORWARD) is phases(BACKWARD)


def test_a_trace_has_the_phases_and_the_operators(tmp_path: Path) -> None:
    phases = Phases()
    profiler = Profiler(phases, CPU)
    with phases(FORWARD):
        torch.ones(8, 8) @ torch.ones(8, 8)
    found = profiler.stop(tmp_path / "profile" / "learner-0.json")
    assert found["problem"] is None
    assert found["seconds"][FORWARD] > 0
    events = json.loads((tmp_path / "profile" / "learner-0.json").read_text())["traceEvents"]
    assert {FORWARD, "aten::mm"} <= {event["name"] for event in events}
    assert [path.name for path in (tmp_path / "profile").iterdir()] == ["learner-0.json"]


def test_a_trace_that_cannot_be_written_is_a_problem_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "profile").touch()
    found = Profiler(Phases(), CPU).stop(tmp_path / "profile" / "learner-0.json")
    assert "learner-0.json was not written" in str(found["problem"])
