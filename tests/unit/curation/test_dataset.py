"""What curation writes: the dataset, a reason for every other sample, the report; equal for equal input,
whole or not there.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from r1ray.config.schema import CurationConfig, GeneralConfig, SourceConfig
from r1ray.curation import output
from r1ray.curation.curate import curate
from r1ray.curation.mix import PUBLISHED, Domain, make_report, report_text
from r1ray.data.conversations import CONVERSATION_FIELDS, parse_conversation
from r1ray.data.stores import open_rows
from r1ray.sampling.store import SampleRow
from tests.unit.curation_support import GOOD, prompts, sample


def run(folder: Path, samples: list[SampleRow], config: CurationConfig, seed: int = 0) -> dict[str, Any]:
    return curate(folder, lambda: iter(samples), config, seed=seed, count_tokens=len)


def rows(folder: Path, name: str = "dataset") -> list[dict[str, Any]]:
    return [row for file in sorted((folder / name).iterdir()) for row in parquet.read_table(file).to_pylist()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_rows_end_with_the_assistant_and_everything_else_has_its_reason(tmp_path: Path) -> None:
    samples = [
        sample(sample=0),
        sample(sample=1, parts={"accuracy": 0.0}, reward=0.0),
        sample(sample=2, finish_reason="length"),
        sample(sample=3, error="VerifierTimeout: accuracy", reward=None, parts={}),
    ]
    report = run(tmp_path, samples, CurationConfig())
    (kept,) = rows(tmp_path)
    assert kept == {
        "id": "sums/0/0",
        "messages": [*samples[0].messages, {"role": "assistant", "content": GOOD}],
        "domain": "sums",
        "source": "sums",
        "tokens": 20,
        "reward": 1.0,
        "prompt_id": "sums/0",
    }
    dropped = rows(tmp_path, "dropped")
    assert [(row["sample"], row["reason"]) for row in dropped] == [(1, "incorrect"), (2, "truncated"), (3, "error")]
    assert dropped[0]["index"] == 0
    domain = report["domains"]["sums"]
    assert (domain["prompts"], domain["samples"], domain["correct"], domain["kept"]) == (1, 4, 2, 1)
    assert domain["dropped"] == {"error": 1, "incorrect": 1, "truncated": 1}
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dataset", "dropped", "report.json", "report.md"]


def test_equal_samples_give_equal_bytes_and_other_filters_another_dataset(tmp_path: Path) -> None:
    samples = prompts(30, 4)
    config = CurationConfig(per_prompt=2, quotas={"sums": 25}, prompt_similarity=0.95, rows_per_file=10)
    run(tmp_path / "a", samples, config)
    run(tmp_path / "b", samples, config)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert [name for name in first if name.startswith("dataset")] == [
        f"dataset/train-0000{i}.parquet" for i in range(3)
    ]
    run(tmp_path / "a", samples, config)  # in the same folder, again
    assert first == contents(tmp_path / "a")
    run(tmp_path / "a", samples, replace(config, quotas={}))
    assert len(rows(tmp_path / "a")) == 60
    assert len(rows(tmp_path / "a", "dropped")) == 60


def test_the_dataset_is_a_source_of_conversations(tmp_path: Path) -> None:
    run(tmp_path, prompts(5), CurationConfig(rows_per_file=2))
    store = open_rows(
        SourceConfig(name="cold", kind="parquet", path=str(tmp_path / "dataset")), fields=CONVERSATION_FIELDS
    )
    read = [parse_conversation(store.raw(i), i, {}) for i in range(len(store))]
    assert [row.row_id for row in read] == [f"sums/{i}/0" for i in range(5)]
    assert [row.response for row in read] == [row.response for row in prompts(5)]
    assert read[0].prompt == prompts(1)[0].messages


def test_every_sample_is_in_the_dataset_or_dropped_exactly_once(tmp_path: Path) -> None:
    samples = prompts(50, 3)
    run(tmp_path, samples, CurationConfig(per_prompt=2, quotas={"sums": 70}, rows_per_file=7))
    ids = Counter(row["id"] for name in ("dataset", "dropped") for row in rows(tmp_path, name))
    assert ids == Counter(f"{s.source}/{s.index}/{s.sample}" for s in samples)


def test_the_form_is_converted_and_its_tokens_counted_anew(tmp_path: Path) -> None:
    opened = sample("7+5</think><answer>12</answer>", meta={"opening": "<think>\n"})
    run(tmp_path / "as_is", [opened], CurationConfig())
    (row,) = rows(tmp_path / "as_is")
    assert row["messages"][-1]["content"] == "<think>\n7+5</think><answer>12</answer>"
    assert row["tokens"] == 20
    run(tmp_path / "summary", [opened], CurationConfig(format="think_summary", summary="Result: {answer}"))
    (row,) = rows(tmp_path / "summary")
    assert row["messages"][-1]["content"] == (text := "<think>\n7+5\n</think>\n\nResult: 12")
    assert row["tokens"] == len(text)


def test_general_data_is_merged_in_as_a_domain(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text(
        '{"prompt": "Hi", "response": "Hello!"}\n{"prompt": "Bye", "response": "Bye!"}\n'
    )
    config = CurationConfig(
        general=[GeneralConfig(name="chat", path=str(tmp_path / "chat.jsonl"))], quotas={"chat": 1, "sums": 3}
    )
    report = run(tmp_path / "run", prompts(4), config)
    merged = [row for row in rows(tmp_path / "run") if row["domain"] == "chat"]
    assert len(merged) == 1
    assert merged[0]["reward"] is None
    assert merged[0]["messages"][-1]["role"] == "assistant"
    assert report["domains"]["chat"]["correct"] is None
    assert report["domains"]["chat"]["dropped"] == {"quota": 1}
    assert report["domains"]["chat"]["share"] == 0.25
    assert report["total"]["kept"] == 4


def test_a_dataset_without_rows_still_has_its_columns(tmp_path: Path) -> None:
    report = run(tmp_path, [sample(parts={"accuracy": 0.0})], CurationConfig())
    assert report["total"]["share"] is None
    assert parquet.read_table(tmp_path / "dataset" / "train-00000.parquet").num_rows == 0


def test_a_curation_that_dies_leaves_the_earlier_result_or_none_that_claims_to_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, prompts(3), CurationConfig())
    before = contents(tmp_path)
    with pytest.raises(RuntimeError, match="in the midst"):
        curate(tmp_path, lambda: broken(prompts(3)), CurationConfig(), seed=0, count_tokens=len)
    assert contents(tmp_path) == before

    synced: list[Path] = []

    def dies(folder: Path) -> None:
        synced.append(folder)
        if folder == tmp_path:
            raise KeyboardInterrupt

    monkeypatch.setattr(output, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, prompts(3), CurationConfig(per_prompt=1))
    assert synced
    assert not (tmp_path / "report.json").exists()
    monkeypatch.undo()
    run(tmp_path, prompts(3), CurationConfig())
    assert contents(tmp_path) == before


def test_an_earlier_dataset_is_whole_or_gone_whenever_its_removal_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = CurationConfig(rows_per_file=1)
    run(tmp_path / "quiet", prompts(3), small)
    run(tmp_path / "run", prompts(4), small)
    whole = [contents(tmp_path / name / "dataset") for name in ("quiet", "run")]

    def dies(path: Path, **_: Any) -> None:
        for file in sorted(Path(path).rglob("*.parquet"))[:1]:
            file.unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", prompts(3), small)
    assert contents(tmp_path / "run" / "dataset") in ({}, *whole)
    monkeypatch.undo()
    run(tmp_path / "run", prompts(3), small)
    assert contents(tmp_path / "run") == contents(tmp_path / "quiet")


def broken(samples: list[SampleRow]) -> Any:
    yield from samples[:2]
    raise RuntimeError("in the midst")


def test_the_report_has_the_shape_of_the_papers_table_with_what_was_published_marked() -> None:
    maths = Domain(prompts=4, samples=16, correct=10, judged=16, kept=6, tokens=600, rounds=6)
    maths.dropped.update({"incorrect": 6, "duplicate": 4})
    chat = Domain(prompts=2, samples=2, kept=2, tokens=30, rounds=4)
    report = make_report({"maths": maths, "chat|small": chat}, ["incorrect", "duplicate", "quota"])
    assert report["domains"]["maths"]["mean_tokens"] == 100
    assert report["domains"]["chat|small"]["mean_rounds"] == 2
    assert report["total"]["share"] == 1.0
    assert report["published"]["total"] == sum(PUBLISHED.values()) == 804_745
    text = report_text(report)
    assert "| maths | 4 | 16 | 10 | 6 | 75% | 1 | 100 |" in text
    assert "| chat\\|small | 2 | 2 | – | 2 | 25% | 2 | 15 |" in text
    assert "| duplicate | 0 | 4 | 4 |" in text
    assert "quota" not in text
    assert "| math (published) | 395,285 | 49% |" in text
