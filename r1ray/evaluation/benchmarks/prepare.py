"""Prepare the problems of a benchmark: check its published rows and write them in a common form.

published rows --Benchmark.row--> problems/<name>.jsonl --data source--> prompts
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from r1ray.config.schema import RewardConfig, SourceConfig
from r1ray.data.stores import RowStore, open_rows
from r1ray.errors import ConfigError, DataError
from r1ray.evaluation.benchmarks.base import Benchmark
from r1ray.util.files import write_atomic

PROBLEMS = "problems"
"""Folder of an evaluation with the problems of its benchmarks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A benchmark whose problems have been read and checked. Producer: `prepare`. Consumer: `r1ray eval`."""

    benchmark: Benchmark
    rows: bytes | None  # JSON lines; None: a synthetic task
    problems: int
    origin: str  # where they were read from, for the record
    digest: str  # of the rows, 16 hexadecimal digits; for a synthetic task, of its name and parameters

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.benchmark.name

    def file(self, folder: Path) -> Path:
        """The file of the problems in the folder of an evaluation."""
        return folder / PROBLEMS / f"{self.name}.jsonl"

    def write(self, folder: Path) -> None:
        """Write the problems into the folder of an evaluation."""
        if self.rows is not None:
            self.file(folder).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.file(folder), self.rows)

    def source(self, folder: Path) -> SourceConfig:
        """The data source of the problems."""
        if self.rows is None:
            return replace(self.benchmark.source, limit=self.problems)
        return SourceConfig(name=self.name, kind="jsonl", path=str(self.file(folder)), split="test")

    @property
    def reward(self) -> RewardConfig:
        """The reward that judges the answers."""
        label = re.sub(r"[^\w.-]", "_", self.name)  # a colon would make it a function of a module
        return RewardConfig(name=f"accuracy/{label}", weight=1.0, params={"verifier": self.benchmark.verifier})


def prepare(benchmark: Benchmark, data: Mapping[str, str], limit: int | None) -> Prepared:
    """Read and check all problems, at most `limit`. `data`: benchmark -> file, folder or hub id to read instead.

    Raises ConfigError for a source that cannot be read, and for the first row without the form of
    the benchmark.
    """
    name = benchmark.name
    if benchmark.row is None:
        if name in data:
            raise ConfigError(f"--data {name}: a synthetic task makes its own problems")
        problems = limit or benchmark.source.limit or 0
        text = json.dumps([benchmark.source.path, benchmark.source.params, problems], sort_keys=True)
        return Prepared(
            benchmark=benchmark,
            rows=None,
            problems=problems,
            origin=f"synthetic task {name}",
            digest=_digest(text.encode()),
        )
    source = _place(benchmark, data.get(name), limit)
    store = open_rows(source, subset=benchmark.subset if source.kind == "hf" else None, fields=benchmark.columns)
    lines = [json.dumps(_row(benchmark, store, number), ensure_ascii=False) for number in range(len(store))]
    if not lines:
        raise ConfigError(f"the benchmark {name} has no problems in {source.path}")
    rows = "".join(f"{line}\n" for line in lines).encode()
    return Prepared(benchmark=benchmark, rows=rows, problems=len(lines), origin=str(source.path), digest=_digest(rows))


def _place(benchmark: Benchmark, given: str | None, limit: int | None) -> SourceConfig:
    if given is None:
        return replace(benchmark.source, name=benchmark.name, limit=limit)
    path = Path(given)
    kind: Literal["jsonl", "parquet", "hf"] = "hf"
    if path.suffix == ".jsonl" or (path.is_dir() and list(path.glob("*.jsonl"))):
        kind = "jsonl"
    elif path.suffix == ".parquet" or (path.is_dir() and list(path.glob("*.parquet"))):
        kind = "parquet"
    if kind == "hf" and path.is_file():
        raise ConfigError(f"--data {benchmark.name}={given}: expected a .jsonl or .parquet file")
    if kind != "hf" and not path.exists():
        raise ConfigError(f"--data {benchmark.name}={given}: there is no such file or folder")
    return SourceConfig(name=benchmark.name, kind=kind, path=given, split=benchmark.source.split, limit=limit)


def _row(benchmark: Benchmark, store: RowStore, number: int) -> dict[str, Any]:
    raw = store.raw(number)
    assert benchmark.row is not None
    try:
        missing = [name for name in benchmark.columns if name not in raw]
        if missing:
            raise DataError(f"the column {missing[0]!r} is missing; the row has {sorted(map(str, raw))!r:.200}")
        return {**benchmark.row(raw, number), "question": str(raw[benchmark.question])}
    except (DataError, TypeError, ValueError, KeyError) as e:
        raise ConfigError(f"the benchmark {benchmark.name} cannot be read at {store.place(number)}: {e}") from e


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
