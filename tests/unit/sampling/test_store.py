"""Shards of samples: what is written is read, in the order of sources, prompts and samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1ray.errors import IntegrityError
from r1ray.sampling.store import Part, count_samples, missing_parts, read_samples, write_shard
from tests.unit.curation_support import prompts, sample

ODD = sample(
    "a\u0000b \U0001f600",
    answer={"tests": [1, None, 2.5]},
    meta={"target_language": "中文"},
    reward=None,
    parts={},
    error="VerifierTimeout: accuracy",
    answer_text=None,
)


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    rows = prompts(6, 2)
    other = prompts(1, 2, source="a/b - c")
    write_shard(tmp_path, Part(source="sums", start=3, stop=6), rows[6:])
    write_shard(tmp_path, Part(source="sums", start=0, stop=3), rows[:6])
    write_shard(tmp_path, Part(source="a/b - c", start=0, stop=1), other)
    assert list(read_samples(tmp_path)) == [*other, *rows]


def test_every_field_survives(tmp_path: Path) -> None:
    write_shard(tmp_path, Part(source="sums", start=0, stop=1), [ODD])
    assert list(read_samples(tmp_path)) == [ODD]


def test_parts_without_a_shard_are_missing(tmp_path: Path) -> None:
    parts = [Part(source="sums", start=i, stop=i + 2) for i in (0, 2, 4)]
    write_shard(tmp_path, parts[1], prompts(2))
    (tmp_path / f".{parts[2].file_name}.1.tmp").write_bytes(b"half")
    assert missing_parts(tmp_path, parts) == [parts[0], parts[2]]
    assert Part.of_file(tmp_path / parts[1].file_name) == parts[1]


def test_shards_that_share_prompts_are_not_read_as_samples(tmp_path: Path) -> None:
    for start, stop in ((0, 64), (64, 100), (64, 128)):
        write_shard(tmp_path, Part(source="sums", start=start, stop=stop), prompts(1))
    write_shard(tmp_path, Part(source="tasks", start=32, stop=96), prompts(1))
    for read in (lambda: list(read_samples(tmp_path)), lambda: count_samples(tmp_path)):
        with pytest.raises(
            IntegrityError, match=r"064-0000100.* and sums-0000064-0000128.* both hold prompt 64 of sums"
        ):
            read()
    (tmp_path / "sums-0000064-0000100.parquet").unlink()
    assert count_samples(tmp_path) == len(list(read_samples(tmp_path))) == 3 * len(prompts(1))


def test_a_shard_of_another_number_of_prompts_is_told(tmp_path: Path) -> None:
    write_shard(tmp_path, Part(source="sums", start=2, stop=3), prompts(1))
    wanted = [Part(source="sums", start=0, stop=2), Part(source="sums", start=2, stop=4)]
    with pytest.raises(IntegrityError, match=r"sums-0000002-0000003\.parquet is none of the parts that are wanted"):
        missing_parts(tmp_path, wanted)


def test_files_that_are_no_shards_are_told(tmp_path: Path) -> None:
    part = Part(source="sums", start=0, stop=1)
    (tmp_path / part.file_name).write_bytes(b"half")
    with pytest.raises(IntegrityError, match="cannot be read as samples"):
        list(read_samples(tmp_path))
    (tmp_path / part.file_name).rename(tmp_path / "notes.parquet")
    with pytest.raises(IntegrityError, match="is no shard of samples"):
        list(read_samples(tmp_path))
