"""Samples on disk: one Parquet shard per part (source, first prompt, end), complete or absent.

samples/gsm8k-0000000-0000064.parquet     64 prompts of the source gsm8k, k rows each
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from r1ray.errors import IntegrityError
from r1ray.types import FinishReason, Message
from r1ray.util.files import write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One sample. Producer: the sampling job. Consumers: curation, evaluation, reports."""

    source: str
    prompt_id: str
    index: int  # position of the prompt in its source
    sample: int  # number among the samples of its prompt, from 0
    messages: tuple[Message, ...]  # the prompt; ends with the user's message
    answer: Any  # ground truth, JSON types
    meta: dict[str, Any]  # JSON types
    response: str  # without the token that ended it
    tokens: int  # T, of the response with its end token
    finish_reason: FinishReason
    reward: float | None  # the weighted sum; None if there is an error
    parts: dict[str, float]  # each reward by name, unweighted
    error: str | None  # name of the failure and what happened
    answer_text: str | None  # the final answer that the response gives, in a canonical form


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Part:
    """Prompts [start, stop) of a source."""

    source: str
    start: int
    stop: int

    @property
    def file_name(self) -> str:
        """Name of its shard."""
        return f"{quote(self.source, safe='')}-{self.start:07d}-{self.stop:07d}.parquet"

    @classmethod
    def of_file(cls, path: Path) -> Part:
        """The part of a shard. Raises IntegrityError if the name is not that of a shard."""
        source, _, span = path.stem.rpartition("-")
        source, _, start = source.rpartition("-")
        if not (source and start.isdigit() and span.isdigit()):
            raise IntegrityError(f"{path} is no shard of samples: a shard is called <source>-<start>-<stop>.parquet")
        return cls(source=unquote(source), start=int(start), stop=int(span))


def write_shard(folder: Path, part: Part, rows: Sequence[SampleRow]) -> Path:
    """Write the samples of a part atomically; returns the shard. `folder`: samples/ of a run folder."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([_columns(row) for row in rows], schema=_schema())
    whole = pyarrow.BufferOutputStream()
    parquet.write_table(table, whole)
    path = folder / part.file_name
    write_atomic(path, whole.getvalue().to_pybytes())
    return path


def missing_parts(folder: Path, parts: Sequence[Part]) -> list[Part]:
    """The parts of a job without a shard, in order. Raises IntegrityError for a shard of another job."""
    there, wanted = set(shards(folder)), set(parts)
    if strange := sorted(there - wanted):
        raise IntegrityError(
            f"{folder / strange[0].file_name} is none of the parts that are wanted: the source {strange[0].source} had "
            "another number of prompts when it was written. Use the same files, or start a new run"
        )
    return [part for part in parts if part not in there]


def shards(folder: Path) -> list[Part]:
    """The parts with a shard in samples/, sorted by source name and start.

    Raises IntegrityError for files that are not shards, and for shards that share prompts, which
    would count twice.
    """
    there = sorted(Part.of_file(path) for path in folder.glob("*.parquet"))
    for before, part in pairwise(there):
        if part.source == before.source and part.start < before.stop:
            raise IntegrityError(
                f"{folder / before.file_name} and {part.file_name} both hold prompt {part.start} of {part.source}: the "
                "source changed between them. Sample it again in a new run"
            )
    return there


def read_samples(folder: Path) -> Iterator[SampleRow]:
    """The samples in samples/, sorted by source name, index and number, so that those of a prompt are adjacent.

    Raises IntegrityError for a shard that cannot be read, and as `shards` does.
    """
    for part in shards(folder):
        yield from read_shard(folder / part.file_name)


def count_samples(folder: Path) -> int:
    """Number of samples in samples/, from the shards' metadata. Raises IntegrityError as `read_samples` does."""
    import pyarrow
    from pyarrow import parquet

    count = 0
    for part in shards(folder):
        path = folder / part.file_name
        try:
            count += parquet.read_metadata(path).num_rows
        except (OSError, pyarrow.ArrowException) as e:
            raise IntegrityError(f"{path} cannot be read as samples ({e}): remove it and sample again") from e
    return count


def read_shard(path: Path) -> Iterator[SampleRow]:
    """The samples of one shard. Raises IntegrityError if it cannot be read."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    yield _row(row)
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as e:
        raise IntegrityError(f"{path} cannot be read as samples ({e}): remove it and sample again") from e


def _columns(row: SampleRow) -> dict[str, Any]:
    columns = {name: getattr(row, name) for name in _schema().names}
    for name in ("answer", "meta", "parts"):
        columns[name] = json.dumps(columns[name], ensure_ascii=False, sort_keys=True)
    return {**columns, "messages": list(row.messages)}


def _row(columns: dict[str, Any]) -> SampleRow:
    parsed = {name: json.loads(columns[name]) for name in ("answer", "meta", "parts")}
    return SampleRow(**{**columns, **parsed, "messages": tuple(columns["messages"])})


def _schema() -> Any:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("source", pa.string()),
            ("prompt_id", pa.string()),
            ("index", pa.int64()),
            ("sample", pa.int32()),
            ("messages", pa.list_(message)),
            ("answer", pa.string()),
            ("meta", pa.string()),
            ("response", pa.string()),
            ("tokens", pa.int32()),
            ("finish_reason", pa.string()),
            ("reward", pa.float64()),
            ("parts", pa.string()),
            ("error", pa.string()),
            ("answer_text", pa.string()),
        ]
    )
