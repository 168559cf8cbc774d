"""The audit: clean on what the ledger writes, and not fooled by any of the ways a file can be wrong."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from r1ray.errors import IntegrityError
from r1ray.ledger import AuditReport, audit
from r1ray.run.audit import audit_run
from tests.unit.ledger_support import fast_folder, new_ledger, payload, train, write_checkpoint


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as path:
        yield path


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trained steps (checkpoint 3), one taken, and a group in every other state."""
    folder = tmp_path_factory.mktemp("run")
    ledger = new_ledger(folder, dynamic_sampling=True)
    train(ledger, 3)
    train(ledger, 1, checkpoint_every=100)
    ledger.lease("w0", 4, 5)
    ledger.put(payload("8-1", version=4))
    ledger.put(payload("9-1", version=4, rewards=(1.0, 1.0)))
    ledger.put(payload("10-1", version=4, error="VerifierError"))
    ledger.fail("11-1", "EngineDied", infrastructure=True)
    ledger.lease("w1", 4, 1)
    ledger.close()
    write_checkpoint(folder, 3)
    (folder / "checkpoints" / "step_000004.tmp").mkdir()
    return folder


@pytest.fixture
def run_dir(pristine: Path, folder: Path) -> Path:
    shutil.copytree(pristine, folder / "run")
    return folder / "run"


def tamper(run_dir: Path, *statements: str) -> AuditReport:
    """The audit of a file that was changed without the tables' constraints."""
    with closing(sqlite3.connect(run_dir / "ledger.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("DROP INDEX one_state_per_prompt")
        for statement in statements:
            assert db.execute(statement).rowcount != 0, statement
    return audit_run(run_dir)


def found(report: AuditReport) -> set[tuple[str, tuple[str, ...]]]:
    return {(v.kind, v.ids) for v in report.violations}


def test_a_sound_run_passes_with_its_table_of_counts(run_dir: Path) -> None:
    report = audit_run(run_dir)
    assert report.violations == ()
    assert report.ok
    assert (report.run_id, report.checkpoints) == ("run-1", (3,))
    table = {(r.what, r.detail): r.groups for r in report.rows}
    totals = {what: n for (what, detail), n in table.items() if not detail}
    assert totals == {
        "leased": 1, "scored": 1, "taken": 2, "trained": 6, "dropped": 3, "re-issued": 1, "queued": 1,
    }  # fmt: skip
    assert table["trained", "step 1"] == table["taken", "step 3"] == 2
    assert {d: n for (w, d), n in table.items() if w == "dropped" and d} == {
        "VerifierError": 1, "EngineDied": 1, "no_signal": 1,
    }  # fmt: skip
    assert json.loads(json.dumps(report.to_json()))["ok"] is True


def test_dropping_the_index_alone_is_no_violation(run_dir: Path) -> None:
    assert tamper(run_dir).ok


@pytest.mark.parametrize(
    ("statement", "kind", "ids"),
    [
        ("UPDATE groups SET fate = 'reissued' WHERE group_id = '9-1'", "index_missing", ("9",)),
        ("UPDATE groups SET fate = 'reissued' WHERE prompt_index > 9", "index_missing", ("10..11",)),
        ("UPDATE groups SET fate = 'queued' WHERE group_id IN (SELECT prompt_index || '-1' FROM groups WHERE attempt = 2)",
         "two_states", ("10",)),
        ("UPDATE groups SET fate = 'final' WHERE group_id = '0-1'", "malformed", ("0-1",)),
        ("UPDATE groups SET step = NULL, slot = NULL WHERE group_id = '7-1'", "malformed", ("7-1",)),
        ("UPDATE groups SET state = 'burnt' WHERE group_id = '8-1'", "malformed", ("8-1",)),
        ("UPDATE groups SET rewards = NULL WHERE group_id = '8-1'", "malformed", ("8-1",)),
        ("UPDATE groups SET cause = 'whim' WHERE group_id = '9-1'", "malformed", ("9-1",)),
        ("UPDATE groups SET slot = 1 WHERE group_id = '8-1'", "malformed", ("8-1",)),
        ("UPDATE groups SET prompt_index = 0, attempt = 9, group_id = '0-9', fate = 'reissued' WHERE group_id = '5-1'",
         "trained_twice", ("0",)),
        ("UPDATE steps SET max_staleness = -1 WHERE step = 2", "too_stale", ("4-1", "5-1")),
        ("UPDATE groups SET min_version = 1 WHERE group_id = '7-1'", "too_stale", ("7-1",)),
        ("UPDATE groups SET max_version = 4 WHERE group_id = '7-1'", "too_new", ("7-1",)),
        ("UPDATE groups SET state = 'trained' WHERE step = 3", "unaccounted", ("3",)),
        ("UPDATE payloads SET payload = x'00' WHERE group_id = '2-1'", "payload", ("2-1",)),
        ("DELETE FROM payloads WHERE group_id = '6-1'", "payload", ("6-1",)),
        ("UPDATE groups SET rewards = '[0.0, 0.5]' WHERE group_id = '3-1'", "payload", ("3-1",)),
        ("UPDATE groups SET rewards = '[0.0' WHERE group_id = '3-1'", "payload", ("3-1",)),
        ("UPDATE groups SET slot = 5 WHERE group_id = '3-1'", "batch", ("1",)),
        ("UPDATE groups SET step = 2, slot = 2 WHERE group_id = '3-1'", "batch", ("1", "2")),
        ("INSERT INTO steps VALUES (9, 1, 0.0)", "batch", ("9",)),
        ("UPDATE groups SET state = 'taken' WHERE group_id = '1-1'", "batch", ("0", "1", "2")),
        ("INSERT INTO payloads VALUES ('99-1', x'00')", "damaged", ("payloads row 12 points to a missing row of groups",)),
    ],
)  # fmt: skip
def test_each_violation_is_found_and_named(run_dir: Path, statement: str, kind: str, ids: tuple[str, ...]) -> None:
    report = tamper(run_dir, statement)
    assert (kind, ids) in found(report)
    assert not report.ok


def test_an_index_that_contradicts_its_table_is_damage(run_dir: Path) -> None:
    report = tamper(
        run_dir,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, '(state, step, scored_order)', '(state, slot, scored_order)')"
        " WHERE name = 'by_state'",
    )
    assert "damaged" in {v.kind for v in report.violations}


def test_checkpoints_and_a_live_learner_account_for_trained_steps(run_dir: Path) -> None:
    assert found(audit(run_dir, [])) == {("unaccounted", ("0", "1", "2"))}
    assert found(audit(run_dir, [2])) == {("unaccounted", ("2",))}
    assert audit(run_dir, [2], live_policy_version=3).ok
    shutil.rmtree(run_dir / "checkpoints")
    assert not audit(run_dir / "ledger.sqlite", []).ok


def test_a_checkpoint_accounts_for_nothing_by_its_name_alone(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "step_000009").mkdir()
    report = audit_run(run_dir)
    assert (report.ok, report.checkpoints) == (True, (3,))
    assert "step_000009 skipped: manifest.json cannot be read" in report.torn[0]
    (run_dir / "checkpoints" / "step_000003" / "trainer.json").write_text("{}")
    report = audit_run(run_dir)
    assert found(report) == {("unaccounted", ("0", "1", "2"))}
    assert "step_000003 skipped: trainer.json does not match the manifest" in report.violations[0].message


def test_a_checkpoint_under_the_name_of_another_is_none(run_dir: Path) -> None:
    (run_dir / "checkpoints" / "step_000003").rename(run_dir / "checkpoints" / "step_000004")
    assert audit_run(run_dir).torn == ("checkpoint step_000004 skipped: expected policy 4, got 3",)
    assert not audit_run(run_dir).ok


def test_a_checkpoint_of_another_run_accounts_for_nothing(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "checkpoints")
    write_checkpoint(run_dir, 3, run_id="run-2")
    report = audit_run(run_dir)
    assert found(report) == {("unaccounted", ("0", "1", "2"))}
    assert "step_000003 skipped: expected run run-1, got run-2" in report.violations[0].message


def test_removed_payloads_are_no_violation(folder: Path) -> None:
    ledger = new_ledger(folder, keep_payload_steps=1)
    train(ledger, 5)
    ledger.close()
    assert audit(folder, [5]).ok
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as db:
        assert db.execute("SELECT COUNT(*) FROM payloads").fetchone() == (2,)
        db.execute("DELETE FROM payloads")
    assert {v.ids for v in audit(folder, [5]).violations} == {("8-1",), ("9-1",)}


def test_many_ids_are_counted_and_some_are_named(run_dir: Path) -> None:
    report = tamper(
        run_dir,
        "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 2 FROM n LIMIT 50)"
        " INSERT INTO groups (group_id, prompt_index, attempt, worker_id, version, leased_at, deadline, state)"
        " SELECT i || '-1', i, 1, 'w', 0, 0.0, 0.0, 'leased' FROM n",
    )
    (missing,) = (v for v in report.violations if v.kind == "index_missing")
    assert missing.ids[:2] == ("12..99", "101")
    assert len(missing.ids) == 20
    assert missing.message.endswith("(50 in all)")


def test_a_folder_without_a_ledger_is_an_error_and_no_pass(folder: Path) -> None:
    with pytest.raises(IntegrityError, match="there is no ledger"):
        audit_run(folder)


def test_the_audit_runs_beside_the_owner(folder: Path) -> None:
    ledger = new_ledger(folder)
    for step in range(4):
        train(ledger, 1)
        report = audit(folder, [step + 1])
        assert report.ok
        assert {r.what: r.groups for r in report.rows if not r.detail}["trained"] == 2 * (step + 1)
    ledger.close()
