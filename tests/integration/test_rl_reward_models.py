"""RL for all scenarios: a source with rewards by rule, and from a step on one that two trained reward models judge."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from r1ray.run.metrics import read_events, read_metrics, read_transcripts
from tests.integration.models import random_model, write_model
from tests.integration.processes import share_fork_servers
from tests.integration.test_reward_model import CONFIG as REWARD_MODEL
from tests.integration.test_reward_model import write_rows

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
KINDS = {"helpful": ("pairwise", "summary"), "safe": ("pointwise", "response")}


def r1ray(*arguments: str | Path) -> None:
    share_fork_servers()
    command = [sys.executable, "-m", "r1ray", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def configuration(folder: Path) -> Path:
    # The prompt opened the thinking, so that a response which never ends it has an empty summary.
    rows = [{"prompt": f"question {n}", "answer": "none", "begun": "<think>"} for n in range(40)]
    (folder / "general.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    models = [
        {"name": f"model/{name}", "params": {"path": f"{folder}/{name}/final", "kind": kind, "judge": judge}}
        for name, (kind, judge) in KINDS.items()
    ]
    sums = {"kind": "synthetic", "path": "arithmetic", "rewards": ["accuracy", "format"]}
    general = {"name": "general", "kind": "jsonl", "path": f"{folder}/general.jsonl", "from_step": 1}
    general["columns"] = {"opening": "begun"}
    content = {
        "extends": [str(Path(__file__).parent / "loop.yaml")],
        "run": {"dir": str(folder / "run")},
        "model": {"path": str(folder / "base")},
        "data": {
            "train": [
                {"name": "sums", **sums},
                {**general, "rewards": ["model/helpful", "model/safe", "format"]},
            ],
            "evaluation": [{"name": "heldout", "split": "heldout", "limit": 4, **sums}],
        },
        "rewards": [{"name": "accuracy", "params": {"verifier": "task"}}, {"name": "format"}, *models],
        "rollout": {"temperature": 0.7},
        "queue": {"max_staleness": 0},  # so that a step trains on the prompts of its own place
        "hacking_monitor": {"max_kl": 1e-9, "consecutive_steps": 1},
    }
    file = folder / "run.yaml"
    file.write_text(json.dumps(content))
    return file


def test_each_source_has_its_rewards_and_each_model_judges_its_part(tmp_path: Path) -> None:
    from r1ray.rewards.learned.conversation import conversation_ids
    from r1ray.rewards.learned.preference import Server, scores_of
    from r1ray.rewards.learned.serving import ModelSettings

    write_model(random_model(1), tmp_path / "base")
    for name, (kind, judge) in KINDS.items():
        write_rows(tmp_path / f"{name}.jsonl", kind)
        rows = f"data.train=[{{name: rows, kind: jsonl, path: {tmp_path}/{name}.jsonl}}]"
        settings = [f"reward_model.kind={kind}", f"reward_model.judge={judge}", "reward_model.epochs=1"]
        folders = [f"model.path={tmp_path}/base", f"run.dir={tmp_path}/{name}"]
        r1ray("reward-model", REWARD_MODEL, *folders, rows, *settings)
    r1ray("train", configuration(tmp_path))

    rows = read_metrics(tmp_path / "run")
    models = {f"reward/part/model/{name}" for name in KINDS}
    assert not models & rows[0].keys()
    for row in rows[1:]:
        assert models <= row.keys()
        assert {"reward/part/accuracy", "reward/part/format"} <= row.keys()
        assert row["train/kl"] > 0  # measured, though the coefficient is 0
    assert "reward_hacking" in [event["kind"] for event in read_events(tmp_path / "run")]

    judged = [t for t in read_transcripts(tmp_path / "run") if "model/safe" in t["parts"]]
    assert judged
    assert all(t["parts"].keys() == {"model/helpful", "model/safe", "format"} for t in judged)
    tokenizer, safe = Server().load(ModelSettings(path=str(tmp_path / "safe" / "final"), device="cpu"))
    for t in judged:
        asked = ({"role": "user", "content": t["prompt"]},)
        assert "</think>" not in t["text"]
        whole = conversation_ids(tokenizer, asked, t["text"], 128)
        assert t["parts"]["model/helpful"] == -10.0  # the floor: the summary is empty
        expected = 1 / (1 + math.exp(-scores_of(safe, [whole])[0]))
        assert t["parts"]["model/safe"] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    r1ray("verify", tmp_path / "run")
