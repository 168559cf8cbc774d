"""Which events become a line on the terminal, and how it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from r1ray.run.metrics import MetricsWriter, read_events
from r1ray.run.notices import NOTICES, REPEAT_S, notice, notices_to
from tests.unit.fake_run import NoView

TRACEBACK = "actor failed:\n  File 'x.py'\n\x1b[31mValueError: bad shape\x1b[0m"
EVENTS: dict[str, dict[str, Any]] = {
    "replaying": {"message": "training on 8 recorded groups", "run": "/runs/a", "run_id": "a", "steps": 4},
    "groups_dropped": {"message": "9 of 9 groups were dropped", "step": 0, "share": 1.0, "reasons": {}},
    "scores_failed": {"message": "9 of 9 samples could not be scored", "share": 1.0, "reasons": {}},
    "worker_lost": {"worker": "rollout-3", "reason": TRACEBACK, "state": "dead"},
    "worker_stale": {"worker": "rollout-1", "reason": "peer died"},
    "sync_retried": {"version": 3, "process": "rollout-1", "reason": "no room for a buffer"},
    "actor_lost": {"actor": "reward-0", "reason": "process 7 is gone"},
    "learner_lost": {"message": "learner-0 was lost during: train step 3: killed"},
    "rolled_back": {"message": "steps 4 to 6 were not finite", "from_policy": 7, "to_policy": 4},
    "checkpoint_skipped": {"message": "step_000004 is incomplete"},
    "ledger_restored": {"message": "the ledger was gone", "copied_at": 1.0, "bound_steps": 3, "lost_groups": None},
    "ledger_moved": {"message": "the ledger was moved to /local/run.sqlite"},
    "ledger_reconciled": {"message": "step_000004 was trained on steps 2 to 3", "first_step": 2, "policy_version": 4},
    "ledger_copy_failed": {"message": "the ledger cannot be copied", "age_s": None},
    "ledger_copy_old": {"message": "the copy of the ledger is old", "age_s": 999.0},
    "ledger_copy_recovered": {"message": "the copies of the ledger succeed again", "age_s": 1.0},
    "host_ends": {"worker": "rollout-2", "node": "n2", "seconds": 118.4, "problem": ""},
    "learner_waiting": {"message": "room for 2 ranks", "seconds": 31.0, "deadline_s": 900.0},
    "stalled": {"seconds": 61.2, "stage": "learner", "policy": "warn", "diagnosis": "stall-000003.txt"},
    "heldout_bound": {"message": "Held-out fluency on bus fell by 0.30: beyond the bound of 0.25", "within": False},
    "reward_hacking": {"step": 9, "metric": "train/kl", "value": 0.34567, "bound": 0.1, "steps": 5},
}


class Lines(NoView):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("kind", NOTICES)
def test_every_notice_is_one_line_made_of_the_fields_of_its_event(kind: str) -> None:
    line = notice({"time": 1.0, "kind": kind, **EVENTS[kind]})
    assert line
    assert "\n" not in line


def test_a_lost_worker_and_its_cause_are_one_line_without_the_traceback() -> None:
    event = {"kind": "worker_lost", **EVENTS["worker_lost"]}
    assert notice(event) == "rollout-3 was lost: actor failed: ... ValueError: bad shape"


def test_events_of_ordinary_progress_have_no_line() -> None:
    assert notice({"kind": "checkpoint", "policy_version": 2, "name": "step_000002"}) is None


def test_the_writer_shows_its_events_and_the_same_text_once_a_minute(tmp_path: Path) -> None:
    now, view = 100.0, Lines()
    with MetricsWriter(tmp_path, tensorboard=False, on_event=notices_to(view), clock=lambda: now) as writer:
        writer.event("worker_lost", worker="rollout-0", reason="killed")
        writer.event("worker_started", worker="rollout-1")
        writer.event("worker_lost", worker="rollout-0", reason="killed")
        writer.event("worker_lost", worker="rollout-1", reason="killed")
        now += REPEAT_S
        writer.event("worker_lost", worker="rollout-0", reason="killed")
    assert view.lines == [f"rollout-{i} was lost: killed" for i in (0, 1, 0)]
    assert len(read_events(tmp_path)) == 5
