"""Output of curation: dataset/, dropped/, report.md and report.json, written to a temporary folder, then published.

The files of the dataset are named after the split `train`, the default of a `parquet` source.
report.json is removed first and published last: if it exists, all other files are complete and belong
to the same curation.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from r1ray.util.files import fsync, write_atomic

DATASET, DROPPED, REPORT_TEXT, REPORT = "dataset", "dropped", "report.md", "report.json"
_ASIDE = ".curation"
_GROUP_ROWS = 1000
"""Maximum number of rows held in memory before they are written."""


class Output:
    """Files of one curation, invisible until `publish`."""

    def __init__(self, folder: Path, rows_per_file: int) -> None:
        """`folder`: the run folder. `rows_per_file`: rows of one file."""
        self._folder = folder
        self._aside = folder / _ASIDE
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir(parents=True)
        self.dataset = _Parts(self._aside / DATASET, "train", _dataset_schema(), rows_per_file)
        self.dropped = _Parts(self._aside / DROPPED, "part", _dropped_schema(), rows_per_file)

    def publish(self, report: Mapping[str, Any], text: str) -> None:
        """Replace an earlier result with this one."""
        self.dataset.close()
        self.dropped.close()
        write_atomic(self._aside / REPORT_TEXT, text.encode())
        write_atomic(self._aside / REPORT, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
        with suppress(FileNotFoundError):
            (self._folder / REPORT).unlink()
        fsync(self._folder)
        # As a whole: removed file by file, what a kill leaves would look like a dataset.
        for name in (DATASET, DROPPED):
            with suppress(FileNotFoundError):
                (self._folder / name).rename(self._aside / f"earlier-{name}")
        for name in (DATASET, DROPPED, REPORT_TEXT):
            (self._aside / name).replace(self._folder / name)
        fsync(self._folder)
        (self._aside / REPORT).replace(self._folder / REPORT)
        fsync(self._folder)

    def __enter__(self) -> Self:
        """Remove replaced and unpublished files at the end of the block; if interrupted, at the next start."""
        return self

    def __exit__(self, *failure: object) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)


class _Parts:
    """Rows in numbered files <name>-00000.parquet, ...; at least one file, for its columns."""

    def __init__(self, folder: Path, name: str, schema: Any, rows_per_file: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._name = name
        self._schema = schema
        self._part_rows = rows_per_file
        self._rows: list[Mapping[str, Any]] = []
        self._writer: Any = None
        self._in_part = 0
        self._parts = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) >= _GROUP_ROWS or self._in_part + len(self._rows) >= self._part_rows:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and sync them to the disk."""
        if self._rows or self._parts == 0:
            self._flush()
        self._end_part()
        for file in self._folder.iterdir():
            fd = os.open(file, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        fsync(self._folder)

    def _flush(self) -> None:
        import pyarrow
        from pyarrow import parquet

        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._folder / f"{self._name}-{self._parts:05d}.parquet", self._schema)
            self._parts += 1
        self._writer.write_table(pyarrow.Table.from_pylist(list(self._rows), schema=self._schema))
        self._in_part += len(self._rows)
        self._rows.clear()
        if self._in_part >= self._part_rows:
            self._end_part()

    def _end_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._in_part = None, 0


def _dataset_schema() -> Any:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("id", pa.string()),
            ("messages", pa.list_(message)),  # the last one is the assistant's
            ("domain", pa.string()),
            ("source", pa.string()),
            ("tokens", pa.int32()),  # of the last message
            ("reward", pa.float64()),  # null for conversations that were merged in
            ("prompt_id", pa.string()),
        ]
    )


def _dropped_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("prompt_id", pa.string()),
            ("domain", pa.string()),
            ("source", pa.string()),
            ("index", pa.int64()),  # of the prompt in its source; null for conversations that were merged in
            ("sample", pa.int32()),
            ("reason", pa.string()),
        ]
    )
