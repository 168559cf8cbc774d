"""A recipe of all kinds of stages with real parts: SIGKILL in each of them, and the same artefacts as without."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from benchmarks.chaos.machines import kill
from r1ray.run.metrics import read_metrics
from tests.integration.models import random_model, write_model
from tests.integration.processes import finish, left_after, processes_of, start_r1ray, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

REWARD = "tests.integration.own_reward:plain_share"
PROMPTS, SAMPLES = 24, 3
EVALUATED, K = 16, 2

COMMON: dict[str, Any] = {
    "run": {"deterministic": True},
    "model": {"dtype": "float32", "max_length": 96},
    "data": {"template": "plain", "max_prompt_tokens": 64},
    "rewards": [{"name": REWARD}],
    "rollout": {
        "workers": 1, "num_gpus": 0.0, "group_size": SAMPLES, "max_new_tokens": 16, "groups_in_engine": 4,
        "engine": {"kv_cache_gib": 0.1, "enforce_eager": True},
    },
    "learner": {
        "num_gpus": 0.0, "zero_stage": 0, "groups_per_step": 4, "minibatches": 2, "micro_batch_tokens": 512,
        "optimizer": {"lr": 1.0e-3},
    },
    "queue": {"max_staleness": 0, "lease_timeout_s": 60.0},
    "sync": {"transport": "gloo", "deadline_s": 30.0, "bucket_deadline_s": 10.0},
    "sampling": {"prompts_per_part": 2},
    "checkpoint": {"every_steps": 1},
    "deadlines": {
        "actor_start_s": 180.0, "step_s": 60.0, "batch_s": 120.0, "checkpoint_s": 60.0, "evaluation_s": 60.0,
        "collective_s": 30.0,
    },
    "logging": {"tensorboard": False},
    "recovery": {"max_memory_fraction": 0.99},
    "ray": {"object_store_gib": 0.1},
}  # fmt: skip


def recipe(model: Path, folder: Path) -> dict[str, Any]:
    sums = {"name": "sums", "path": "arithmetic", "params": {}}
    curation = {"correct": [{"part": REWARD, "at_least": 0.5}], "drop_truncated": False, "per_prompt": 2}
    return {
        "name": "killed",
        "dir": str(folder),
        "inputs": {"base": str(model)},
        "common": {"config": COMMON},
        "evaluation": {
            "options": {"benchmarks": ["arithmetic"], "k": K, "limit": EVALUATED, "temperature": 1.0, "top_p": 1.0},
            "config": {"sampling": {"prompts_per_part": 2}},
        },
        "stages": {
            "rl": {
                "kind": "rl", "evaluate": False, "doc": "RL",
                "config": {"run": {"steps": 4}, "model": {"path": "@base"}, "data": {"train": [sums]}},
            },
            "samples": {
                "kind": "sample", "doc": "Sampling",
                "config": {"model": {"path": "@rl"}, "data": {"train": [{**sums, "limit": PROMPTS}]}, "curation": curation},
            },
            "sft": {
                "kind": "sft", "doc": "SFT",
                "config": {
                    "model": {"path": "@base"}, "sft": {"epochs": 6, "batch_size": 4},
                    "data": {"train": [{"name": "samples", "kind": "parquet", "path": "@samples"}]},
                },
            },
        },
    }  # fmt: skip


def start(file: Path) -> subprocess.Popen[str]:
    return start_r1ray("recipe", file)


def kill_all(runner: subprocess.Popen[str]) -> None:
    """The runner, its stage and every process of that, at once, as a power failure would."""
    processes = processes_of(runner)
    kill(processes)
    assert not left_after(60.0, processes)
    runner.communicate(timeout=60)


def progress(folder: Path, stage: str) -> int:
    """Steps or shards that the stage has behind it."""
    if stage in ("samples", "eval_sft"):
        return len(list((folder / stage / "samples").glob("*.parquet")))
    return len(read_metrics(folder / stage))


def kill_in(file: Path, folder: Path, stage: str, after: int) -> None:
    """Run the recipe until `stage` has `after` steps or shards, and kill it there."""
    runner = start(file)
    wait_for(runner, f"step or shard {after} of {stage}", lambda: progress(folder, stage) >= after)
    kill_all(runner)
    assert not (folder / stage / "lineage.json").exists(), f"{stage} was killed too late to be in the midst"


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def artefacts(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "eval_sft" / "results.json").read_text())
    return {
        "rl": {f.name: f.read_bytes() for f in (folder / "rl" / "final").glob("*.safetensors")},
        "samples": rows(folder / "samples" / "samples"),
        "dataset": {f.name: f.read_bytes() for f in (folder / "samples" / "dataset").iterdir()},
        "sft": {f.name: f.read_bytes() for f in (folder / "sft" / "final").glob("*.safetensors")},
        "evaluated": rows(folder / "eval_sft" / "samples"),
        "figures": results["rows"],
    }


def test_killed_in_every_stage_it_ends_with_the_same_artefacts(tmp_path: Path) -> None:
    write_model(random_model(seed=3), tmp_path / "model")
    files = {}
    for name in ("undisturbed", "killed"):
        files[name] = tmp_path / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump(recipe(tmp_path / "model", tmp_path / name)))
    finish(start(files["undisturbed"]))

    rng, folder = random.Random(0), tmp_path / "killed"
    for stage, most in (("rl", 3), ("samples", 6), ("sft", 12), ("eval_sft", 4)):
        kill_in(files["killed"], folder, stage, rng.randint(1, most))
    finish(start(files["killed"]))

    found, wanted = artefacts(folder), artefacts(tmp_path / "undisturbed")
    sampled = Counter((row["source"], row["index"], row["sample"]) for row in found["samples"])
    assert sampled == Counter(("sums", index, sample) for index in range(PROMPTS) for sample in range(SAMPLES))
    evaluated = Counter((row["index"], row["sample"]) for row in found["evaluated"])
    assert evaluated == Counter((index, sample) for index in range(EVALUATED) for sample in range(K))
    assert found["rl"]
    assert found["sft"]
    for name in wanted:
        assert found[name] == wanted[name], f"{name} differs"
