"""`r1ray sample` with real parts: after a kill and a resume every sample exists once, and the dataset is the same."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.integration.processes import finish, start_r1ray, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
CONFIG = Path(__file__).parent / "sample.yaml"
PROMPTS = {"sums": 64, "more": 8}
PARTS = 36
SAMPLES = 3


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return start_r1ray("sample", *arguments)


def shards(run: Path) -> int:
    return len(list((run / "samples").glob("*.parquet")))


def signal_after_a_shard(driver: subprocess.Popen[str], run: Path, number: signal.Signals) -> str:
    """Send the signal as soon as there is a shard more; what the driver told until its end."""
    before = shards(run)
    wait_for(driver, "a shard", lambda: shards(run) > before)
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=60)
    assert before < shards(run) < PARTS, "the signal came too late to be in the midst"
    assert not (run / "samples.json").exists()
    return output


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return [row for file in sorted((run / name).glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def result(run: Path) -> dict[str, bytes]:
    files = [run / "report.json", run / "report.md", *(run / "dataset").iterdir(), *(run / "dropped").iterdir()]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    told = finish(start(CONFIG, f"run.dir={run}", f"model.path={model}"))
    assert "Dataset: " in told
    return run


def check_whole(run: Path) -> None:
    every = {
        (source, index, sample) for source, n in PROMPTS.items() for index in range(n) for sample in range(SAMPLES)
    }
    sampled = Counter((row["source"], row["index"], row["sample"]) for row in rows(run, "samples"))
    assert sampled == Counter(every)
    kept = [row["id"] for row in rows(run, "dataset")]
    dropped = [row["id"] for row in rows(run, "dropped")]
    assert Counter(kept + dropped) == Counter(f"{source}/{index}/{sample}" for source, index, sample in every)


def test_a_run_samples_curates_and_reports(undisturbed: Path) -> None:
    check_whole(undisturbed)
    report = json.loads((undisturbed / "report.json").read_text())
    total = report["total"]
    assert total["samples"] == sum(PROMPTS.values()) * SAMPLES
    assert 0 < total["kept"] < total["correct"] < total["samples"]
    assert set(total["dropped"]) <= {"incorrect", "per_prompt", "quota"}
    assert report["domains"]["more"]["kept"] == 3
    for row in rows(undisturbed, "dataset"):
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
        assert row["reward"] >= 0.5


def test_stopped_killed_and_resumed_it_ends_with_the_same_dataset(
    undisturbed: Path, model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    driver = start(CONFIG, f"run.dir={run}", f"model.path={model}")
    told = signal_after_a_shard(driver, run, signal.SIGINT)
    assert driver.returncode == 0, told
    assert f"Continue with `r1ray sample --resume {run}`" in told
    driver = start("--resume", run)
    signal_after_a_shard(driver, run, signal.SIGKILL)
    finish(start("--resume", run))
    check_whole(run)
    assert result(run) == result(undisturbed)


def test_other_filters_make_another_dataset_of_the_same_samples(undisturbed: Path) -> None:
    before, written = result(undisturbed), times(undisturbed)
    finish(start("--only-curate", undisturbed, "curation.per_prompt=1", "curation.quotas={}"))
    counts = Counter((row["source"], row["prompt_id"]) for row in rows(undisturbed, "dataset"))
    assert set(counts.values()) == {1}
    told = finish(start("--resume", undisturbed, "curation.correct.0.at_least=2.0"), code=1)
    assert "no sample was kept (216 incorrect)" in " ".join(told.split())
    finish(start("--only-curate", undisturbed, CONFIG))
    assert result(undisturbed) == before
    assert times(undisturbed) == written


def times(run: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (run / "samples").iterdir()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("curation.correct.0.part=accuracy", "is not measured on sums, more"),
        ("curation.general=[{name: chat, path: nowhere.jsonl}]", "nowhere.jsonl does not exist"),
        ("data.train.0.limit=null", "a synthetic task has no end"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(model: Path, tmp_path: Path, change: str, told: str) -> None:
    run = tmp_path / "refused"
    output = finish(start(CONFIG, f"run.dir={run}", f"model.path={model}", change), code=2)
    assert told in " ".join(output.split())
    assert not run.exists()
