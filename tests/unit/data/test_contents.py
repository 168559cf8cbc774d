"""What a run keeps of the files that it reads, so that a resume can tell whether they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from r1ray.config.schema import DataConfig, SourceConfig
from r1ray.data.contents import contents
from r1ray.errors import ConfigError
from tests.unit.data_helpers import write_jsonl

ROWS = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(6)]
OTHER = [*ROWS[:3], {**ROWS[3], "answer": "7"}, *ROWS[4:]]
TASK = SourceConfig(name="bus", kind="synthetic", path="bus")


def write(kind: str, path: Path, rows: list[dict[str, Any]]) -> None:
    if kind == "jsonl":
        write_jsonl(path, rows)
    elif kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(path))


def source(kind: str, path: Path, **keys: Any) -> SourceConfig:
    return SourceConfig(name="sums", kind=kind, path=str(path), **keys)


def found(kind: str, path: Path, **keys: Any) -> dict[str, Any]:
    data = DataConfig(train=[source(kind, path, **keys), TASK])
    facts = contents(data, evaluates=False)
    assert list(facts) == ["data.train"]
    assert list(facts["data.train"]) == ["sums"]
    return dict(facts["data.train"]["sums"])


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "hf"])
def test_the_same_rows_are_the_same_and_others_are_not(tmp_path: Path, kind: str) -> None:
    for name, rows in (("a", ROWS), ("again", ROWS), ("longer", [*ROWS, *ROWS]), ("other", OTHER)):
        write(kind, tmp_path / name, rows)
    facts = {name: found(kind, tmp_path / name) for name in ("a", "again", "longer", "other")}
    assert facts["a"] == facts["again"]
    assert [facts[name]["rows"] for name in facts] == [6, 6, 12, 6]
    assert len({facts[name]["digest"] for name in facts}) == 3


@pytest.mark.parametrize("kind", ["jsonl", "hf"])
def test_what_stands_behind_the_limit_does_not_count(tmp_path: Path, kind: str) -> None:
    write(kind, tmp_path / "a", ROWS)
    write(kind, tmp_path / "longer", [*ROWS, *ROWS])
    assert (
        found(kind, tmp_path / "a", limit=6) == found(kind, tmp_path / "longer", limit=6) == found(kind, tmp_path / "a")
    )
    assert found(kind, tmp_path / "a", limit=2)["rows"] == 2


def test_the_files_of_a_split_count_together(tmp_path: Path) -> None:
    for part in range(2):
        write("parquet", tmp_path / f"train-{part}.parquet", ROWS[3 * part : 3 * part + 3])
    write("parquet", tmp_path / "test-0.parquet", ROWS)
    assert found("parquet", tmp_path)["rows"] == 6
    assert found("parquet", tmp_path, limit=4)["rows"] == 4
    before = found("parquet", tmp_path)
    write("parquet", tmp_path / "test-0.parquet", OTHER)
    assert found("parquet", tmp_path) == before
    write("parquet", tmp_path / "train-1.parquet", OTHER[3:])
    assert found("parquet", tmp_path) != before


def test_only_what_the_command_reads_is_looked_at(tmp_path: Path) -> None:
    write("jsonl", tmp_path / "a", ROWS)
    here = source("jsonl", tmp_path / "a")

    def sections(*, evaluates: bool = False, decontaminate: bool = False) -> list[str]:
        data = DataConfig(train=[here], evaluation=[here], decontaminate_against=[here], decontaminate=decontaminate)
        return list(contents(data, evaluates=evaluates))

    assert sections() == ["data.train"]
    assert sections(evaluates=True) == ["data.train", "data.evaluation"]
    assert sections(decontaminate=True) == ["data.train", "data.evaluation", "data.decontaminate_against"]
    assert contents(DataConfig(train=[TASK], evaluation=[TASK]), evaluates=True) == {}


def test_an_empty_file_has_no_rows_and_an_absent_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("\n")
    assert found("jsonl", tmp_path / "a")["rows"] == 0
    (tmp_path / "b").write_bytes(b"PAR1 no more")
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        found("parquet", tmp_path / "b")
    with pytest.raises(ConfigError, match="does not exist"):
        found("jsonl", tmp_path / "c")


def test_two_sources_of_one_name_are_both_kept(tmp_path: Path) -> None:
    for name, rows in (("a", ROWS), ("b", OTHER)):
        write("jsonl", tmp_path / name, rows)
    data = DataConfig(decontaminate_against=[source("jsonl", tmp_path / name) for name in "ab"], decontaminate=True)
    kept = contents(data, evaluates=False)["data.decontaminate_against"]
    assert list(kept) == ["sums", "sums (2)"]
    assert kept["sums"]["digest"] != kept["sums (2)"]["digest"]
