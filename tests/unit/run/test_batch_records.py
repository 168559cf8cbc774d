"""Records of batches: one file per checkpoint, for a ledger that is restored from an older copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r1ray.errors import DiskFull, IntegrityError
from r1ray.run.batch_records import BatchRecords
from r1ray.types import BatchManifest, GroupSummary


def batch(step: int, reward: float = 0.1) -> BatchManifest:
    group = GroupSummary(
        group_id=f"{step}-1",
        index=step,
        prompt_tokens=5,
        completion_tokens=(3, 4),
        rewards=(reward, 1 / 3),
        min_policy_version=step,
        max_policy_version=step + 1,
    )
    return BatchManifest(step=step, groups=(group,))


def written(run: Path, *checkpoints: int) -> BatchRecords:
    records, first = BatchRecords(run), 0
    for end in checkpoints:
        for step in range(first, end):
            records.add(batch(step))
        records.write(end)
        records.committed(end, 0)
        first = end
    return records


def files(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "batches").iterdir())


def test_batches_read_back_bit_by_bit(tmp_path: Path) -> None:
    written(tmp_path, 2, 5)
    assert BatchRecords(tmp_path).read(1, 5) == [batch(step) for step in range(1, 5)]


def test_steps_that_the_copy_knows_are_removed(tmp_path: Path) -> None:
    records = written(tmp_path, 2, 4, 6)
    records.committed(6, 4)
    assert files(tmp_path) == ["step_000006.json"]


def test_steps_that_are_trained_again_are_recorded_again(tmp_path: Path) -> None:
    records = written(tmp_path, 2, 4)
    records.back_to(2)
    records.add(batch(2, reward=0.9))
    records.write(3)
    assert records.read(0, 3)[2] == batch(2, reward=0.9)
    assert files(tmp_path) == ["step_000002.json", "step_000003.json"]


def test_a_missing_step_is_refused_by_name(tmp_path: Path) -> None:
    written(tmp_path, 2, 4)
    (tmp_path / "batches" / "step_000002.json").unlink()
    with pytest.raises(IntegrityError, match=r"first 1 steps only, checkpoint step_000004 .* lacks step 1"):
        BatchRecords(tmp_path).read(1, 4)


def test_a_full_disk_is_named_and_the_steps_are_kept_for_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = BatchRecords(tmp_path)
    records.add(batch(0))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        records.write(1)
    monkeypatch.undo()
    records.write(1)
    assert records.read(0, 1) == [batch(0)]
