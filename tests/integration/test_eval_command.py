"""`r1ray eval` with real parts: a worker killed, then the driver, then the same command again;
every sample is there once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from r1ray.run.metrics import read_events
from tests.integration.models import random_model, write_model
from tests.integration.processes import finish, start_r1ray, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
PARTS = 24
SAMPLES = 4
KEYS = (
    "run.deterministic=true",
    "sampling.prompts_per_part=2",
    "rollout.engine.kv_cache_gib=0.1",
    "ray.object_store_gib=0.1",
    "deadlines.actor_start_s=180",
    "recovery.max_memory_fraction=0.99",
)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command without its folder: two benchmarks, a random model, training data that holds two of the questions."""
    folder = tmp_path_factory.mktemp("eval")
    write_model(random_model(seed=3), folder / "model")
    questions = [f"Ann has {i} apples and buys {i} more at the shop; how many has she now?" for i in range(24)]
    lines = [json.dumps({"question": q, "answer": f"She has {2 * i}.\n#### {2 * i}"}) for i, q in enumerate(questions)]
    (folder / "problems.jsonl").write_text("\n".join(lines))
    trained = [json.dumps({"prompt": f"Think hard. {questions[i]}", "answer": "?"}) for i in (3, 5)]
    (folder / "train.jsonl").write_text("\n".join(trained))
    options = ["--data", f"gsm8k={folder / 'problems.jsonl'}", "--against", str(folder / "train.jsonl")]
    sizes = ["--limit", "24", "-k", str(SAMPLES), "--max-new-tokens", "24"]
    return [str(folder / "model"), "--benchmarks", "gsm8k,bus:n=2-3", *options, *sizes, *KEYS]


def start(arguments: list[str], run: Path) -> subprocess.Popen[str]:
    return start_r1ray("eval", *arguments, "--out", run)


def shards(run: Path) -> int:
    return len(list((run / "samples").glob("*.parquet")))


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_events(run) if row["kind"] == kind]


def test_killed_and_started_again_it_has_every_sample_once(command: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver = start(command, run)
    wait_for(driver, "a first shard", lambda: shards(run) > 0)
    os.kill(events(run, "worker_ready")[0]["pid"], signal.SIGKILL)
    wait_for(driver, "the loss of the worker", lambda: bool(events(run, "worker_lost")))
    before = shards(run)
    wait_for(driver, "a shard of the next worker", lambda: shards(run) > before)
    driver.kill()
    driver.communicate(timeout=60)
    assert before < shards(run) < PARTS, "it came too late to be in the midst"
    assert not (run / "results.json").exists()
    there = {file.name: file.stat().st_mtime_ns for file in (run / "samples").glob("*.parquet")}
    told = finish(start(command, run))
    assert there.items() <= {f.name: f.stat().st_mtime_ns for f in (run / "samples").iterdir()}.items()
    check(run, told)
    again = finish(start(command, run))  # nothing is left to sample
    assert again.strip() == (run / "results.md").read_text().strip()
    refused(command, run)


def check(run: Path, told: str) -> None:
    files = sorted((run / "samples").glob("*.parquet"))
    rows = [row for file in files for row in parquet.read_table(file).to_pylist()]
    sampled = Counter((row["source"], row["index"], row["sample"]) for row in rows)
    asked = {"gsm8k": 24, "bus:n=2-3": 24}
    assert sampled == Counter((name, i, s) for name, n in asked.items() for i in range(n) for s in range(SAMPLES))
    assert all(row["messages"][-1]["content"].endswith("\\boxed{}.") for row in rows if row["source"] == "gsm8k")
    results = json.loads((run / "results.json").read_text())
    figures = {row["benchmark"]: row for row in results["rows"]}
    for name, n in asked.items():
        row = figures[name]
        assert (row["problems"], row["samples"], row["errors"]) == (n, SAMPLES, {})
        of_it = [r for r in rows if r["source"] == name]
        assert row["length"] == pytest.approx(sum(r["tokens"] for r in of_it) / len(of_it))
        assert row["accuracy"] == pytest.approx(sum(r["reward"] for r in of_it) / len(of_it))
        assert row["pass_at"]["1"] == pytest.approx(row["accuracy"])
        assert list(row["pass_at"]) == ["1", "2", "4"]
        assert row["sampling"] == {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 24}
    assert (figures["gsm8k"]["contaminated"], figures["bus:n=2-3"]["contaminated"]) == (2, None)
    assert results["overlap"] == {"gsm8k": ["3", "5"]}
    assert told.strip().endswith((run / "results.md").read_text().strip())


def refused(command: list[str], run: Path) -> None:
    """Another evaluation does not go into the same folder."""
    results = (run / "results.json").read_bytes()
    other = [item if item != str(SAMPLES) else "2" for item in command]
    assert "give another --out" in " ".join(finish(start(other, run), code=2).split())
    assert "run.seed" in finish(start([*command, "run.seed=7"], run), code=2)
    assert (run / "results.json").read_bytes() == results
