"""An evaluation on disk: what it is of, and what came of it.

evaluation.json   what was asked for; a resume asks for the same
problems/         the problems of published benchmarks, in one form
samples/          every sample, one Parquet shard a part
results.json      the figures, a row a benchmark, with published ones beside them
results.md        the same for people
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ray.config.schema import SourceConfig
from r1ray.data.conversations import CONVERSATION_FIELDS, parse_conversation
from r1ray.data.grams import Grams
from r1ray.data.stores import open_rows
from r1ray.errors import ConfigError, DataError
from r1ray.evaluation.benchmarks.prepare import Prepared
from r1ray.evaluation.figures import figures
from r1ray.evaluation.published import published
from r1ray.files import read_json, write_atomic
from r1ray.sampling.store import Part, SampleRow, read_shard
from r1ray.types import Message

RECORD = "evaluation.json"
RESULTS = "results.json"
SAMPLES = "samples"


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Note what is evaluated."""
    write_atomic(folder / RECORD, json.dumps(record, indent=1).encode())


def check_same(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise ConfigError where the evaluation in `folder` is of something else than `record`."""
    before = read_json(folder / RECORD)
    differing = sorted(key for key in {*before, *record} if before.get(key) != record.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{folder} holds an evaluation with {key} = {json.dumps(before.get(key))[:200]}, this one has "
            f"{json.dumps(record.get(key))[:200]}: give another --out"
        )


def write_results(folder: Path, record: Mapping[str, Any], prepared: Sequence[Prepared]) -> dict[str, Any]:
    """The figures of all samples, as results.json has them; written with results.md."""
    rows = []
    for made in prepared:
        asked = record["benchmarks"][made.name]
        rows.append(
            {
                "benchmark": made.name,
                "problems_digest": made.digest,
                "origin": made.origin,
                **figures(_samples(folder, made.name), votes=made.benchmark.votes),
                "contaminated": record["contaminated"].get(made.name),
                "sampling": asked["sampling"],
                "published": published(made.name),
            }
        )
    results = {"model": record["model"], "model_hash": record["model_hash"], "seed": record["seed"], "rows": rows}
    write_atomic(folder / RESULTS, json.dumps(results, indent=1).encode())
    write_atomic(folder / "results.md", to_markdown(results).encode())
    return results


def _samples(folder: Path, source: str) -> list[SampleRow]:
    parts = sorted(Part.of_file(path) for path in (folder / SAMPLES).glob("*.parquet"))
    return [row for part in parts if part.source == source for row in read_shard(folder / SAMPLES / part.file_name)]


def to_markdown(results: Mapping[str, Any]) -> str:
    """The figures as a table, then the published ones, marked as such."""
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
    told = [(row["benchmark"], p) for row in results["rows"] for p in row["published"]]
    if told:
        lines += ["", "Published, not measured here (v1: arXiv 2501.12948v1, N: s41586-025-09422-z):", ""]
        lines += ["| benchmark | model | pass@1 | cons@64 | source |", "|---|---|---:|---:|---|"]
        for benchmark, p in told:
            consensus = f"{p['consensus']:.1%}" if "consensus" in p else "–"
            lines.append(f"| {benchmark} | {p['model']} | {p['accuracy']:.1%} | {consensus} | {p['source']} |")
    return "\n".join(lines) + "\n"


def _with_error(value: float, error: float) -> str:
    return f"{value:.1%} ± {error:.1%}"


def contamination(prepared: Sequence[Prepared], against: Sequence[str]) -> dict[str, int]:
    """Benchmark -> problems that share a 10-gram with a prompt of the training data in `against` (JSONL or Parquet).

    Synthetic tasks keep their splits apart by themselves and are left out. Raises ConfigError for data that cannot be read.
    """
    counts = {}
    for made in prepared:
        if made.rows is None or not against:
            continue
        problems = [_asked(json.loads(line)) for line in made.rows.decode().splitlines()]
        everything = Grams()
        everything.add_all(problems)
        found = Grams()  # of the training prompts that have anything in common with the benchmark
        for path in against:
            found.add_all(prompt for prompt in _training_prompts(path) if everything.shares(prompt))
        counts[made.name] = sum(found.shares(problem) for problem in problems)
    return counts


def _asked(row: Mapping[str, Any]) -> tuple[Message, ...]:
    return ({"role": "user", "content": str(row["prompt"])},)


def _training_prompts(given: str) -> list[tuple[Message, ...]]:
    path = Path(given)
    jsonl = path.suffix == ".jsonl" or (path.is_dir() and bool(list(path.glob("*.jsonl"))))
    source = SourceConfig(name=given, kind="jsonl" if jsonl else "parquet", path=given, split="")
    store = open_rows(source, fields=(*CONVERSATION_FIELDS, "question"))
    prompts = []
    for number in range(len(store)):
        raw = store.raw(number)
        try:
            if isinstance(raw, dict) and "messages" not in raw and "prompt" not in raw and "question" in raw:
                prompts.append(_asked({"prompt": raw["question"]}))
            else:
                prompts.append(_prompt_of(raw, number))
        except DataError as e:
            raise ConfigError(f"--against {store.place(number)}: {e}") from e
    return prompts


def _prompt_of(raw: Any, number: int) -> tuple[Message, ...]:
    """What was asked, of a conversation or of a prompt without a response."""
    if isinstance(raw, dict) and isinstance(raw.get("prompt"), str):
        return _asked(raw)
    return parse_conversation(raw, number, {}).prompt
