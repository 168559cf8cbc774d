"""A recipe with real parts: its sampling is killed, the same command resumes inside the stage,
a third one does nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from tests.integration.models import random_model, write_model
from tests.integration.processes import start_r1ray, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
HERE = Path(__file__).parent
RECIPE = """
name: real
dir: {dir}
seed: 1
inputs: {{base: {model}}}
evaluation:
  extends: [{here}/sample.yaml]
  options: {{benchmarks: [arithmetic], k: 2, limit: 4, max_new_tokens: 16}}
  config: {{data: {{max_prompt_tokens: 64}}}}
stages:
  zero:
    kind: rl
    extends: [{here}/loop.yaml]
    config: {{model: {{path: "@base"}}, run: {{steps: 2}}, data: {{evaluation: []}}}}
  cold:
    kind: sample
    extends: [{here}/sample.yaml]
    config: {{model: {{path: "@zero"}}}}
  tuned:
    kind: sft
    evaluate: false
    extends: [{here}/sft.yaml]
    config:
      model: {{path: "@zero"}}
      data: {{train: [{{name: cold, kind: parquet, path: "@cold"}}], evaluation: []}}
"""
STAGES = ["zero", "eval_zero", "cold", "tuned"]


def start(recipe: Path, *words: str) -> subprocess.Popen[str]:
    return start_r1ray("recipe", recipe, *words)


def finish(recipe: subprocess.Popen[str], code: int, folder: Path) -> str:
    told, _ = recipe.communicate(timeout=400)
    logs = "".join(f"\n{log}\n{log.read_text()}" for log in sorted((folder / "logs").glob("*.log")))
    assert recipe.returncode == code, told + logs
    return told


def read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def kill_in_the_midst(recipe: subprocess.Popen[str], folder: Path) -> None:
    """SIGKILL for the process that samples, as soon as its first shard is there."""
    wait_for(recipe, "a shard", lambda: any((folder / "cold" / "samples").glob("*.parquet")))
    os.kill(read(folder / "stages" / "cold.json")["attempts"][-1]["pid"], signal.SIGKILL)


def test_a_recipe_goes_on_inside_the_stage_that_was_killed(tmp_path: Path) -> None:
    model, folder, path = tmp_path / "model", tmp_path / "out", tmp_path / "real.yaml"
    write_model(random_model(seed=3), model)
    path.write_text(RECIPE.format(dir=folder, model=model, here=HERE))

    recipe = start(path)
    kill_in_the_midst(recipe, folder)
    told = finish(recipe, 128 + signal.SIGKILL, folder)
    assert "stage cold was killed by signal 9" in told
    assert not (folder / "cold" / "samples.json").exists()
    there = {shard.name: shard.stat().st_mtime_ns for shard in (folder / "cold" / "samples").glob("*.parquet")}

    told = finish(start(path), 0, folder)
    assert told.count("already") == 2
    assert "resumes" in told
    assert all((folder / "cold" / "samples" / name).stat().st_mtime_ns == at for name, at in there.items())
    samples = [r for s in (folder / "cold" / "samples").glob("*.parquet") for r in parquet.read_table(s).to_pylist()]
    assert len({(r["prompt_id"], r["sample"]) for r in samples}) == len(samples) > 0

    record = read(folder / "recipe.json")
    assert [(s["name"], s["state"]) for s in record["stages"]] == [(name, "done") for name in STAGES]
    lineage = {name: read(folder / name / "lineage.json") for name in STAGES}
    assert lineage["cold"]["attempts"] == 2
    assert lineage["cold"]["inputs"]["@zero"]["digest"] == lineage["zero"]["output"]["digest"]
    assert lineage["tuned"]["inputs"]["@cold"]["digest"] == lineage["cold"]["output"]["digest"]
    assert lineage["zero"]["seed"] == 1
    assert (folder / "tuned" / "final" / "config.json").exists()

    told = finish(start(path, "--resume"), 0, folder)
    assert told.count("already") == len(STAGES)
    assert {name: read(folder / name / "lineage.json") for name in STAGES} == lineage
