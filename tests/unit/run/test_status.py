"""Why a run stands still, told from its folder: driver alive, silent, killed, ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.ledger import Ledger, LedgerSettings
from r1ray.run.folder import RunFolder
from r1ray.run.metrics import MetricsWriter
from r1ray.run.status import RunStatus, explain, read_run_status

NOW = 1_800_000_000.0
TOLD = {
    "state": "running",
    "waiting_for": "a batch of 4 groups",
    "step": 3,
    "steps": 9,
    "policy_version": 3,
    "synced_version": 3,
    "last_sync": {"version": 3, "seconds": 0.5, "age_s": 12.0},
    "workers": [
        {"id": "rollout-0", "role": "rollout", "state": "healthy", "version": 3, "tokens_per_s": 900.0},
        {"id": "rollout-1", "role": "rollout", "state": "starting", "version": -1, "tokens_per_s": 0.0},
    ],
    "updated": NOW,
    "pid": 4242,
    "host": "box",
}


def told(folder: RunFolder, **changes: Any) -> None:
    folder.write_status({**TOLD, **changes})


def why(folder: RunFolder, *, age_s: float = 1.0) -> str:
    return "\n".join(explain(seen(folder, age_s=age_s)))


def seen(folder: RunFolder, *, age_s: float = 1.0) -> RunStatus:
    return read_run_status(folder.path, clock=NOW + age_s)


def test_a_run_that_has_said_nothing_yet(folder: RunFolder) -> None:
    assert (seen(folder).state, seen(folder).age_s) == ("starting", None)
    assert "no ledger yet" in why(folder)


def test_the_blocked_stage_the_sync_and_the_workers_that_do_not_serve(folder: RunFolder) -> None:
    told(folder)
    text = why(folder)
    assert "waiting for a batch of 4 groups" in text
    assert "1 of 2 workers do not serve: rollout-1 starting" in text
    assert "of policy 3, 12.0 s before that" in text
    assert "the driver" not in text


def test_the_bottleneck_of_a_run_that_is_alive_is_named(folder: RunFolder) -> None:
    told(folder, bottleneck="learner-bound: a second rank (learner.ranks=2) would give up to 1.6x")
    assert "learner-bound: a second rank" in why(folder)
    told(folder, state="interrupted", bottleneck="learner-bound: ...")
    assert "learner-bound" not in why(folder)


def test_a_living_driver_that_says_nothing(folder: RunFolder) -> None:
    told(folder)
    assert "has been silent for 1m 30s" in why(folder, age_s=90)


def test_a_full_disk_is_seen_where_the_driver_cannot_write_that(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(folder)
    assert "room" not in why(folder)
    monkeypatch.setattr("r1ray.run.status.shutil.disk_usage", lambda path: SimpleNamespace(free=4096))
    assert "4 KiB are free on its disk: free space; the run continues by itself" in why(folder, age_s=90)


def test_a_full_disk_of_the_ledger_is_named_while_the_driver_lives(folder: RunFolder) -> None:
    told(folder, queue={"free_bytes": 4096})
    assert "4 KiB are free on the disk of run.ledger_dir: free space" in why(folder)
    told(folder, queue={"free_bytes": None})
    assert "KiB" not in why(folder)
    told(folder, queue={"free_bytes": 4096})
    folder.release()
    assert "KiB" not in why(folder)  # that was then


def test_a_pause_says_for_what(folder: RunFolder) -> None:
    told(folder, state="paused", message="the ledger to commit: no room left")
    assert "paused: the ledger to commit: no room left" in why(folder)


def test_a_warning_of_a_run_that_continues_is_shown(folder: RunFolder) -> None:
    told(folder, state="running", message="9 of 9 groups for step 3 (100%) were dropped: KeyError (9)")
    assert "9 of 9 groups for step 3 (100%) were dropped: KeyError (9)" in why(folder)


def test_a_driver_that_is_gone_without_a_word(folder: RunFolder) -> None:
    told(folder)
    folder.release()
    assert seen(folder).state == "killed"
    assert "the driver (process 4242 on box) was killed while the run was running" in why(folder)
    assert f"r1ray train --resume {folder.path}" in why(folder)
    assert "it waited for a batch of 4 groups" in why(folder)
    assert "do not serve" not in why(folder)


def test_ended_runs_say_how(folder: RunFolder) -> None:
    folder.release()
    told(folder, state="finished")
    assert explain(seen(folder)) == []
    told(folder, state="failed", message="NumericError: the loss is NaN")
    assert "failed: NumericError: the loss is NaN; continue with" in why(folder)
    told(folder, state="interrupted")
    assert "interrupted; continue with" in why(folder)


def test_the_oldest_group_in_flight_and_what_the_step_lacks(folder: RunFolder) -> None:
    told(folder)
    settings = LedgerSettings(groups_per_step=4, max_staleness=0, lease_timeout_s=60.0, max_attempts=3)
    ledger = Ledger.create(folder.ledger, settings, run_id="r", clock=lambda: NOW)
    ledger.lease("rollout-0", 0, 3)
    ledger.close()
    status = seen(folder)
    assert status.ledger is not None
    assert status.ledger.leased == 3
    assert "step 0 needs 4 groups, 0 are ready, 3 in flight" in why(folder)
    assert "the oldest group in flight is 0-1 at rollout-0, for " in why(folder)


def test_a_step_that_waits_for_reserved_groups_says_so(folder: RunFolder) -> None:
    told(folder)
    settings = LedgerSettings(
        groups_per_step=4, max_staleness=0, lease_timeout_s=60.0, max_attempts=3, reserve_after_stale=0
    )
    ledger = Ledger.create(folder.ledger, settings, run_id="r", clock=lambda: NOW)
    assert "reserved" not in why(folder)
    ledger.lease("rollout-0", 0, 3)
    ledger.close()
    assert "step 0 waits for 3 reserved groups in flight, which would be too old for later steps" in why(folder)


def test_the_last_trouble_is_told_and_what_is_none_is_not(folder: RunFolder) -> None:
    told(folder)
    with MetricsWriter(folder.path, tensorboard=False) as writer:
        writer.event("worker_lost", worker="rollout-1", reason="it died")
        writer.event("worker_started", worker="rollout-2")
    assert "last trouble: worker_lost at " in why(folder)
    assert "worker rollout-1, reason it died" in why(folder)
    assert [event["kind"] for event in seen(folder).trouble] == ["worker_lost"]


def test_the_error_of_another_process_is_told_in_one_line(folder: RunFolder) -> None:
    told(
        folder,
        state="failed",
        message="RetryBudgetExhausted: rollout-3 died: \x1b[36mray::x\x1b[39m\n  ^^^\nOSError: no space",
    )
    folder.release()
    (line,) = explain(seen(folder))
    assert line.startswith("failed: RetryBudgetExhausted: rollout-3 died: ray::x ... OSError: no space; continue with")


def test_json_has_the_same_and_is_plain(folder: RunFolder) -> None:
    told(folder)
    as_json = seen(folder).to_json()
    assert as_json["why"] == explain(seen(folder))
    assert as_json["driver"]["pid"] > 0
    assert as_json["status"]["step"] == 3
