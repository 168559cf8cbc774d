"""Check a data file row by row, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from r1ray.data.files import FileParams
from r1ray.data.rows import parse_row
from r1ray.data.stores import parse_line
from r1ray.errors import ConfigError, DataError
from r1ray.rewards.base import Reward, Sample

MAX_LINE_BYTES = 16 << 20
_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """The verdict on one row. Producer: `check_file`. Consumer: `r1ray data check`."""

    number: int  # of the line (JSONL) or row (Parquet), from 1
    fault: str | None  # None if there is none


def check_file(
    path: Path, columns: Mapping[str, str], params: FileParams, verifier: Reward | None = None
) -> Iterator[CheckedRow]:
    """Check every row of a JSONL or (by its suffix) Parquet file as a data source with these
    columns and parameters would.

    With a `verifier`, also check that it accepts the answer or the tests of each row. Reads one
    line, or one batch of rows, at a time. Raises ConfigError if the file cannot be opened.
    """
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _jsonl_rows(path)
    for number, raw in rows:
        try:
            if isinstance(raw, DataError):
                raise raw
            row = params.with_final_answer(parse_row(raw, number, columns))
            if verifier is not None:  # it reads the ground truth first; an empty response is never run
                verifier(Sample(response="", answer=row.answer, meta=row.meta))
        except DataError as e:
            yield CheckedRow(number=number, fault=str(e))
        else:
            yield CheckedRow(number=number, fault=None)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each line that is not blank; the value of a bad line is a DataError."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                if line is None:
                    yield number, DataError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
                elif not line.isspace():
                    yield number, _parsed(line)
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}") from e


def _parsed(line: bytes) -> Any:
    try:
        return parse_line(line)
    except DataError as e:
        return e


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is longer than MAX_LINE_BYTES."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while not line.endswith(b"\n") and (more := file.readline(MAX_LINE_BYTES)):
            line = more
        yield None


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, pyarrow.ArrowException) as e:
        raise ConfigError(f"{path} cannot be read as Parquet after {number} rows: {e}") from e
