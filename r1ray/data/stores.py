"""Rows of files, read one at a time: JSONL by byte offset, Parquet and Hugging Face data sets through Arrow.

A data set is never held in memory as Python objects; all processes of a node share the pages of a file.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from r1ray.config.schema import SourceConfig
from r1ray.data.presets import with_preset
from r1ray.data.rows import FIELDS, columns_of
from r1ray.errors import ConfigError, DataError


class RowStore(Protocol):
    """The raw rows of one source, numbered from 0."""

    def __len__(self) -> int: ...

    def raw(self, number: int) -> Any:
        """One row, as parsed from the file. Raises DataError if it cannot be read."""
        ...

    def place(self, number: int) -> str:
        """The position of a row, for messages: file and line."""
        ...

    def digest(self) -> str:
        """Hash of all rows: 32 hex digits, the same in every process and after every restart."""
        ...


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.60} occurs twice in one object")
    return found


_JSON = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def parse_line(line: bytes) -> Any:
    """The value of one line of JSONL. Raises DataError, with the position, for a malformed line."""
    try:
        return _JSON.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise DataError(f"not UTF-8: {e.reason} at byte {e.start}") from e
    except json.JSONDecodeError as e:
        raise DataError(f"not JSON: {e.msg} at character {e.pos}") from e
    except (ValueError, RecursionError) as e:  # NaN, a number of thousands of digits, deep nesting
        raise DataError(f"not usable JSON: {e}") from e


class JsonlRows:
    """A JSONL file, mapped into memory; only the offset of each line is kept. Blank lines are skipped."""

    def __init__(self, path: Path, limit: int | None) -> None:
        starts, ends, offset = array("q"), array("q"), 0
        with path.open("rb") as file:
            for line in file:
                if limit is not None and len(starts) == limit:
                    break
                if not line.isspace():
                    starts.append(offset)
                    ends.append(offset + len(line))
                offset += len(line)
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if offset else None
        self._path = path
        self._starts, self._ends = starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    def raw(self, number: int) -> Any:
        """See RowStore."""
        assert self._bytes is not None
        return parse_line(self._bytes[self._starts[number] : self._ends[number]])

    def place(self, number: int) -> str:
        """See RowStore."""
        assert self._bytes is not None
        line = self._bytes[: self._starts[number]].count(b"\n") + 1
        return f"{self._path}:{line}"

    def digest(self) -> str:
        """Hash of the bytes up to the end of the last row: rows beyond `limit` do not count."""
        hashed = hashlib.sha256()
        if self._bytes is not None and self._ends:
            # A slice of the map itself would be a copy.
            with memoryview(self._bytes) as whole, whole[: self._ends[-1]] as used:
                hashed.update(used)
        return hashed.hexdigest()[:32]


class ArrowRows:
    """A table of Arrow columns."""

    def __init__(self, table: Any, name: str, limit: int | None) -> None:
        self._table = table if limit is None else table.slice(0, limit)
        self._name = name

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def raw(self, number: int) -> Any:
        """See RowStore."""
        return self._table.slice(number, 1).to_pylist()[0]

    def place(self, number: int) -> str:
        """See RowStore."""
        return f"{self._name} row {number}"

    def digest(self) -> str:
        """Hash of the values, which does not depend on the memory layout of a version of Arrow."""
        hashed = hashlib.sha256()
        for batch in self._table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                hashed.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
        return hashed.hexdigest()[:32]


def open_rows(
    source: SourceConfig, *, subset: str | None = None, revision: str | None = None, fields: Sequence[str] = FIELDS
) -> RowStore:
    """The raw rows of a source, at most `limit`. Raises ConfigError if there is no such file or data set.

    `subset` and `revision` select a part of a Hugging Face data set. `fields`: names that rows are
    built from; other columns are not read.
    """
    source = with_preset(source)
    assert source.path is not None, "the configuration's checks refuse a source without a path"
    if source.kind == "jsonl":
        return JsonlRows(files_of(source)[0], source.limit)
    if source.kind == "parquet":
        return ArrowRows(_parquet_table(source, files_of(source), fields), source.path, source.limit)
    return ArrowRows(_hub_table(source, source.path, subset, revision, fields), source.path, source.limit)


def files_of(source: SourceConfig) -> list[Path]:
    """The file of a JSONL or Parquet source, or those of its split in a folder. Raises ConfigError if there is none."""
    assert source.path is not None, "the configuration's checks refuse a source without a path"
    path = Path(source.path)
    pattern = f"{source.split}.jsonl" if source.kind == "jsonl" else f"{source.split}*.parquet"
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"the source {source.name}: {path} does not exist (working directory: {Path.cwd()})")
    files = sorted(path.glob(pattern))
    if not files:
        raise ConfigError(f"the source {source.name}: the folder {path} contains no {pattern}")
    return files


def _columns(source: SourceConfig, there: list[str], fields: Sequence[str]) -> list[str]:
    """The columns to read, among those in the file `there`; long columns that no field needs stay on disk."""
    if missing := {top_level(column, there) for column in source.columns.values()} - set(there):
        raise ConfigError(
            f"the source {source.name}: columns {sorted(missing)} not found in {source.path}, which has {there}"
        )
    wanted = {top_level(column, there) for column in columns_of(fields, source.columns).values()}
    return [name for name in there if name in wanted]


def top_level(column: str, there: Sequence[str]) -> str:
    """Return the column of the file that the path `column` begins with."""
    return column if column in there else column.partition(".")[0]


def _parquet_table(source: SourceConfig, files: list[Path], fields: Sequence[str]) -> Any:
    import pyarrow
    from pyarrow import parquet

    tables = []
    for file in files:
        try:
            columns = _columns(source, parquet.read_schema(file).names, fields)
            tables.append(parquet.read_table(file, columns=columns, memory_map=True))
        except pyarrow.ArrowException as e:
            raise ConfigError(f"{file} cannot be read as Parquet: {e}") from e
    return pyarrow.concat_tables(tables)


def _hub_table(source: SourceConfig, path: str, subset: str | None, revision: str | None, fields: Sequence[str]) -> Any:
    import datasets

    try:
        if (Path(path) / "state.json").exists() or (Path(path) / "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(path)
            rows = loaded[source.split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            rows = datasets.load_dataset(path, name=subset, revision=revision, split=source.split)
    except (OSError, ValueError, KeyError, RuntimeError) as e:  # RuntimeError: a data set that is a script
        raise ConfigError(
            f"the source {source.name} cannot load the data set {path!r}, split {source.split}: {e}"
        ) from e
    return rows.select_columns(_columns(source, rows.column_names, fields)).with_format("arrow")[:]
