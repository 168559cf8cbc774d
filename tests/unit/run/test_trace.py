"""`r1ray trace` on a real ledger, with times set by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from r1ray.cli import build_app
from r1ray.codec import pack_scored
from r1ray.errors import ConfigError
from r1ray.ledger import Ledger, LedgerSettings
from r1ray.run.trace import chrome_trace, read_trace, timeline
from r1ray.types import GENERATED_S, QUEUED_S, SCORED_S
from tests.synthetic_run import write_run
from tests.unit.scripted import scored

TIMINGS = {QUEUED_S: 0.5, GENERATED_S: 4.0, SCORED_S: 1.0}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def put(ledger: Ledger, group_id: str, timings: dict[str, float]) -> None:
    made = scored(int(group_id.partition("-")[0]), version=0)
    ledger.put(pack_scored(replace(made, rollout=replace(made.rollout, group_id=group_id, timings=timings))))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Prompt 0: its first group lost its worker, the second is trained in step 0. Prompt 1: in flight."""
    write_run(tmp_path, steps=1, evaluate_every=0)
    row = {"step": 0, "time": 1030.0, "learner/step_s": 6.0, "sync/seconds": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    clock = Clock()
    settings = LedgerSettings(groups_per_step=1, max_staleness=1, lease_timeout_s=60, max_attempts=1)
    ledger = Ledger.create(tmp_path / "ledger.sqlite", settings, run_id="bus-1a2b3c", clock=clock)
    ledger.lease("rollout-0", 0, 1)
    ledger.release_worker("rollout-0")
    ledger.lease("rollout-1", 0, 2)
    clock.now = 1008.0
    put(ledger, "0-2", TIMINGS)
    clock.now = 1010.0
    ledger.take(0)
    clock.now = 1020.0
    ledger.publish(1, 0, "d")
    clock.now = 1025.0
    ledger.commit(1, "step_000001")
    ledger.close()
    return tmp_path


def test_the_stages_follow_each_other_from_the_lease_to_the_checkpoint(run: Path) -> None:
    trace = read_trace(run, "0-2")
    assert [(s.stage, s.start, s.end) for s in trace.spans] == [
        ("queued", 1000.0, 1000.5),
        ("generate", 1000.5, 1004.5),
        ("wait for scoring", 1004.5, 1007.0),
        ("score", 1007.0, 1008.0),
        ("queue", 1008.0, 1010.0),
        ("wait for the learner", 1010.0, 1012.0),
        ("train", 1012.0, 1018.0),
        ("sync", 1018.0, 1020.0),
        ("until its checkpoint", 1020.0, 1025.0),
    ]
    assert trace.notes == ("other groups of its prompt: 0-1 (worker_left)",)
    assert read_trace(run, "0") == trace


def test_the_text_has_one_line_for_each_stage(run: Path) -> None:
    lines = timeline(read_trace(run, "0"))
    assert lines[0] == "group 0-2  trained"
    assert "0.500 s      4.000 s  generate" in lines[2]
    assert "2 completions, 7 tokens, the longest 4; policy 0" in lines[2]
    assert "rewards 0, 1" in lines[4]


def test_the_chrome_trace_has_complete_events_in_microseconds(run: Path) -> None:
    events = chrome_trace(read_trace(run, "0"))["traceEvents"]
    train = next(e for e in events if e["name"] == "train")
    assert (train["ph"], train["ts"], train["dur"]) == ("X", 1012.0 * 1e6, 6.0 * 1e6)
    rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert rows[train["tid"]] == "learner"
    assert set(rows.values()) == {"rollout-1", "reward worker", "queue", "learner"}


def test_durations_of_another_clock_never_run_backwards(run: Path) -> None:
    rows = (run / "metrics.jsonl").read_text().replace('"learner/step_s": 6.0', '"learner/step_s": 60.0')
    (run / "metrics.jsonl").write_text(rows)
    spans = read_trace(run, "0").spans
    assert all(a.end == b.start and b.seconds >= 0 for a, b in pairwise(spans))


def test_groups_that_were_never_scored_say_why(run: Path) -> None:
    lost, flying = read_trace(run, "0-1"), read_trace(run, "1")
    assert lost.spans == flying.spans == ()
    assert "dropped: worker_left; the ledger does not keep the time" in lost.notes
    assert flying.notes == ("never scored: leased by rollout-1 for policy 0",)


@pytest.mark.parametrize(
    ("group", "message"), [("7", "no group 7"), ("0-9", "no group 0-9; it has 0-1, 0-2"), ("x", "expected a group")]
)
def test_unknown_groups_are_refused(run: Path, group: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_trace(run, group)


def test_the_command_prints_the_timeline_and_writes_the_trace(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run / "trace.json"
    build_app()(["trace", str(run), "0", "--out", str(out)], standalone_mode=False)
    assert "group 0-2  trained" in capsys.readouterr().out
    assert json.loads(out.read_text())["traceEvents"]
