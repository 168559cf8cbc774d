"""Trained against leased groups by length, as `r1ray verify` reports them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from typer.testing import CliRunner

from r1ray.cli import build_app
from r1ray.ledger import LengthQuartile, audit
from r1ray.run.folder import RunFolder
from r1ray.run.identity import RunIdentity
from tests.unit.ledger_support import RUN, fast_folder, new_ledger, payload, write_checkpoint


def run_with_stragglers(folder: Path) -> None:
    """Lengths 11 to 18 are trained in four steps of two; 21 returns too old, 12 has no signal, 31 is in flight."""
    with closing(new_ledger(folder, dynamic_sampling=True)) as ledger:
        ledger.lease("straggler", 0, 1)
        for step in range(4):
            first, second = ledger.lease("w0", step, 2)
            ledger.put(payload(first.group_id, version=step, tokens=10 + 2 * step))
            ledger.put(payload(second.group_id, version=step, tokens=11 + 2 * step))
            assert ledger.take(step) is not None
        ledger.put(payload("0-1", version=0, tokens=20))
        assert ledger.take(4) is None  # 0-1 is too old
        equal, ready = ledger.lease("w0", 4, 2)
        assert ledger.put(payload(equal.group_id, version=4, tokens=11, rewards=(1.0, 1.0))) == "no_signal"
        ledger.put(payload(ready.group_id, version=4, tokens=30))
        ledger.commit(4, "step_000004")
    write_checkpoint(folder, 4)


def test_quartiles_hold_the_groups_whose_fate_is_known() -> None:
    with fast_folder() as folder:
        run_with_stragglers(folder)
        report = audit(folder, [4])
    assert report.ok
    assert report.lengths == (
        LengthQuartile(shortest=11, longest=12, leased=3, trained=2, stale=0, no_signal=1),
        LengthQuartile(shortest=13, longest=14, leased=2, trained=2, stale=0, no_signal=0),
        LengthQuartile(shortest=15, longest=16, leased=2, trained=2, stale=0, no_signal=0),
        LengthQuartile(shortest=17, longest=21, leased=3, trained=2, stale=1, no_signal=0),
    )
    assert report.lengths[-1].trained_share == 2 / 3


def test_equal_lengths_are_one_quartile_and_a_new_run_has_none() -> None:
    with fast_folder() as folder:
        with closing(new_ledger(folder)) as ledger:
            assert audit(folder, [0]).lengths == ()
            for lease in ledger.lease("w0", 0, 2):
                ledger.put(payload(lease.group_id, tokens=7))
            ledger.take(0)
        (only,) = audit(folder, [0]).lengths
    assert (only.shortest, only.longest, only.leased, only.trained) == (8, 8, 2, 2)


def test_damaged_lengths_are_a_violation_and_no_crash() -> None:
    with fast_folder() as folder:
        run_with_stragglers(folder)
        with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as db:
            db.execute("UPDATE groups SET completion_tokens = '[3' WHERE group_id = '1-1'")
            db.execute("UPDATE groups SET completion_tokens = '[]' WHERE group_id = '2-1'")
        report = audit(folder, [4])
    assert {v.ids for v in report.violations} == {("1-1",), ("2-1",)}
    assert sum(q.leased for q in report.lengths) == 8


def test_verify_prints_them(tmp_path: Path) -> None:
    identity = RunIdentity(vocab_hash="v", model_hash="m", config_hash="c", run_id=RUN, created=0.0, r1ray="0.1.0")
    with RunFolder.create(tmp_path / "run", "run: {}\n", identity) as run:
        run_with_stragglers(run.path)
    result = CliRunner().invoke(build_app(), ["verify", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "longest completion" in result.output
    assert any(
        line.split() == ["17", "to", "21", "3", "2", "1", "0", "67%", "trained"] for line in result.output.splitlines()
    )
