"""Files of an evaluation: its record, samples and results.

evaluation.json   benchmarks, model and sampling; a resume must match it
problems/         problems of published benchmarks, in a common form
samples/          every sample, one Parquet shard per part
results.json      figures, one row per benchmark, with published ones beside them
results.md        the same as a page
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1ray.config.identity import refuse_another_run
from r1ray.config.load import LoadedConfig, load_config
from r1ray.config.schema import Config, SourceConfig
from r1ray.data.conversations import CONVERSATION_FIELDS, parse_conversation
from r1ray.data.grams import Grams
from r1ray.data.stores import open_rows
from r1ray.errors import ConfigError, DataError
from r1ray.evaluation.benchmarks.prepare import Prepared
from r1ray.evaluation.figures import figures
from r1ray.evaluation.published import published
from r1ray.rewards.answers.equality import Equality
from r1ray.run.folder import RunFolder
from r1ray.sampling.store import SampleRow, read_shard, shards
from r1ray.types import Message
from r1ray.util.files import read_json, write_atomic

RECORD = "evaluation.json"
RESULTS = "results.json"
SAMPLES = "samples"


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write evaluation.json."""
    write_atomic(folder / RECORD, json.dumps(record, indent=1).encode())


def check_same(folder: RunFolder, record: Mapping[str, Any], loaded: LoadedConfig) -> None:
    """Raise ConfigError if the run in `folder` is not an evaluation, or differs from `record` and `loaded`."""
    if (use := folder.identity().use) != "eval":
        raise ConfigError(f"{folder.path} is a run of `r1ray {use}`: give another --out")
    stored = load_config([str(folder.config.resolve())], use="eval").config
    refuse_another_run(_besides(stored), _besides(loaded.config), loaded.provenance)
    if not (folder.path / RECORD).exists():
        return  # killed before the record was written, so before sampling
    before = read_json(folder.path / RECORD)
    differing = sorted(key for key in {*before, *record} if before.get(key) != record.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{folder.path} holds an evaluation with {key} = {json.dumps(before.get(key))[:200]}, this one has "
            f"{json.dumps(record.get(key))[:200]}: give another --out"
        )


def _besides(config: Config) -> Config:
    """The configuration without the benchmarks, which are compared by their digests."""
    return replace(config, data=replace(config.data, evaluation=[]))


def write_results(folder: Path, record: Mapping[str, Any], prepared: Sequence[Prepared]) -> dict[str, Any]:
    """Compute the figures of all samples and write results.json and results.md; returns the former's content."""
    with Equality() as same:
        rows = [
            {
                "benchmark": made.name,
                "problems_digest": made.digest,
                "origin": made.origin,
                **figures(_samples(folder, made.name), verifier=made.benchmark.verifier, same=same),
                "contaminated": _count(record["contaminated"].get(made.name)),
                "sampling": record["benchmarks"][made.name]["sampling"],
                "published": published(made.name),
            }
            for made in prepared
        ]
    results = {
        "model": record["model"],
        "model_hash": record["model_hash"],
        "seed": record["seed"],
        "rows": rows,
        "against": record["request"]["against"],
        "overlap": record["contaminated"],
    }
    write_atomic(folder / RESULTS, json.dumps(results, indent=1).encode())
    write_atomic(folder / "results.md", to_markdown(results).encode())
    return results


def _count(ids: Sequence[str] | None) -> int | None:
    return None if ids is None else len(ids)


def _samples(folder: Path, source: str) -> list[SampleRow]:
    return [
        row
        for part in shards(folder / SAMPLES)
        if part.source == source
        for row in read_shard(folder / SAMPLES / part.file_name)
    ]


def to_markdown(results: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, and the published ones, marked as such."""
    lines = [
        f"# {results['model']}",
        "",
        "| benchmark | problems | samples | pass@1 | pass@k | cons@k | length | truncated | errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results["rows"]:
        k = str(row["samples"])
        errors = sum(row["errors"].values())
        cells = [
            row["benchmark"],
            f"{row['problems']:,}",
            k,
            _with_error(row["accuracy"], row["accuracy_se"]),
            _with_error(row["pass_at"][k], row["pass_at_se"][k]),
            "–" if row["consensus"] is None else _with_error(row["consensus"], row["consensus_se"]),
            f"{row['length']:.1f}",
            f"{row['truncated']:.1%}",
            f"{errors:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if results["against"]:
        lines += ["", f"10-grams in common with {', '.join(results['against'])}:", ""]
        lines += [
            f"- {name}: {len(ids):,} problems"
            + (f" ({', '.join(ids[:10])}{', ...' if len(ids) > 10 else ''})" if ids else "")
            for name, ids in results["overlap"].items()
        ]
    listed = [(row["benchmark"], p) for row in results["rows"] for p in row["published"]]
    if listed:
        lines += ["", "Published, not measured here (v1: arXiv 2501.12948v1, N: s41586-025-09422-z):", ""]
        lines += ["| benchmark | model | pass@1 | cons@64 | source |", "|---|---|---:|---:|---|"]
        for benchmark, p in listed:
            consensus = f"{p['consensus']:.1%}" if "consensus" in p else "–"
            lines.append(f"| {benchmark} | {p['model']} | {p['accuracy']:.1%} | {consensus} | {p['source']} |")
    return "\n".join(lines) + "\n"


def _with_error(value: float, error: float) -> str:
    return f"{value:.1%} ± {error:.1%}"


class _Overlap:
    """The questions of a benchmark, and the 10-grams of the training prompts that overlap with any of them."""

    def __init__(self, rows: bytes) -> None:
        problems = [json.loads(line) for line in rows.splitlines()]
        self._questions = {str(row["id"]): _user(row["question"]) for row in problems}
        self._all, self._met = Grams(), Grams()
        self._all.add_all(self._questions.values())

    def add_training_prompt(self, prompt: tuple[Message, ...]) -> None:
        if self._all.shares(prompt):
            self._met.add_all([prompt])

    def shared(self) -> list[str]:
        return [name for name, question in self._questions.items() if self._met.shares(question)]


def contamination(prepared: Sequence[Prepared], against: Sequence[str]) -> dict[str, list[str]]:
    """Benchmark -> ids of its problems that share a 10-gram with a prompt in `against` (JSONL or Parquet files).

    The text that a benchmark adds to its questions does not count. The training data is read once,
    as a stream; only overlapping prompts are kept in memory. Synthetic tasks, which have disjoint
    splits, are left out. Raises ConfigError for data that cannot be read.
    """
    if not against:
        return {}
    overlaps = {made.name: _Overlap(made.rows) for made in prepared if made.rows is not None}
    for place in against:
        for prompt in _training_prompts(place):
            for overlap in overlaps.values():
                overlap.add_training_prompt(prompt)
    return {name: overlap.shared() for name, overlap in overlaps.items()}


def _user(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def _training_prompts(given: str) -> Iterator[tuple[Message, ...]]:
    path = Path(given)
    jsonl = path.suffix == ".jsonl" or (path.is_dir() and bool(list(path.glob("*.jsonl"))))
    source = SourceConfig(name=given, kind="jsonl" if jsonl else "parquet", path=given, split="")
    store = open_rows(source, fields=(*CONVERSATION_FIELDS, "question"))
    for number in range(len(store)):
        raw = store.raw(number)
        try:
            if isinstance(raw, dict) and "messages" not in raw and "prompt" not in raw and "question" in raw:
                yield _user(str(raw["question"]))
            else:
                yield _prompt_of(raw, number)
        except DataError as e:
            raise ConfigError(f"--against {store.place(number)}: {e}") from e


def _prompt_of(raw: Any, number: int) -> tuple[Message, ...]:
    """The prompt of a conversation, or of a row without a response."""
    if isinstance(raw, dict) and isinstance(raw.get("prompt"), str):
        return _user(raw["prompt"])
    return parse_conversation(raw, number, {}).prompt
