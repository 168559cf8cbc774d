"""`r1ray reward-model` with real parts: what it trains serves as a reward, and it survives SIGKILL to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1ray.run.metrics import read_evaluations, read_events, read_metrics
from tests.integration.learner_support import run_ranks
from tests.integration.processes import finish, start_r1ray, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
CONFIG = Path(__file__).parent / "reward_model.yaml"


def write_rows(file: Path, kind: str) -> None:
    """The good and the safe responses end in `yes`; their length carries no information."""
    rows = []
    for n in range(24):
        filler = "ab " * (n % 5)
        good, bad = f"{filler}yes", f"{'cd ' * ((n + 2) % 5)}no"
        if kind == "pairwise":
            rows.append({"prompt": f"question {n}", "chosen": good, "rejected": bad})
        else:
            rows += [{"prompt": f"question {n}", "response": text, "safe": text is good} for text in (good, bad)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_packed_in_training_and_padded_in_serving_give_the_same_scores(tmp_path: Path) -> None:
    import numpy as np
    import torch

    from learner.preference.model import empty_base, new_head, pack_examples
    from learner.preference.rows import Example
    from r1ray.config.schema import ModelConfig
    from r1ray.rewards.learned.preference import Server, scores_of
    from r1ray.rewards.learned.serving import ModelSettings
    from tests.integration.learner_support import with_weights
    from tests.integration.models import random_model, write_model

    write_model(random_model(0), tmp_path / "base")
    trained = empty_base(ModelConfig(path=str(tmp_path / "base"), dtype="float32"), pad_token_id=0)
    with_weights(trained, tmp_path / "base", new_head(trained, seed=0))
    trained.hf.save_pretrained(tmp_path / "base")
    rows = [[7, 8, 9], list(range(1, 60)), [5], list(range(90, 120))]
    pairs = [
        Example(sequences=(np.array(a, dtype=np.int32), np.array(b, dtype=np.int32)), lengths=(1, 1))
        for a, b in (rows[:2], rows[2:])
    ]
    with torch.no_grad():
        packed = trained(pack_examples(pairs, torch.device("cpu"))).tolist()
    _, served = Server().load(ModelSettings(path=str(tmp_path / "base"), device="cpu"))
    assert scores_of(served, rows) == pytest.approx(packed, rel=1e-4, abs=1e-5)
    assert max(packed) - min(packed) > 0.01


def items(folder: Path, kind: str, run: Path, *more: str) -> list[str]:
    """The arguments of `r1ray reward-model` behind CONFIG, after writing the base model and the rows."""
    from tests.integration.models import random_model, write_model

    if not (folder / "base").exists():
        write_model(random_model(0), folder / "base")
        write_rows(folder / "data.jsonl", kind)
    data = f"data.train=[{{name: rows, kind: jsonl, path: {folder / 'data.jsonl'}}}]"
    return [f"model.path={folder / 'base'}", data, f"reward_model.kind={kind}", f"run.dir={run}", *more]


def report_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "final" / "reward_report.json").read_text())
    return found


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model-00001.safetensors")


def three_steps(rank: int, world_size: int, port: int, arguments: list[str], stage: int, out: str) -> Any:
    from learner.preference.rank import RewardModelRank
    from r1ray.config.load import load_config

    os.environ["OMP_NUM_THREADS"] = "1"
    changes = [
        *arguments,
        f"learner.ranks={world_size}",
        f"learner.zero_stage={stage}",
        "learner.micro_batch_tokens=256",
    ]
    made = RewardModelRank(config=load_config([str(CONFIG)], changes, "reward-model").config, rank=rank)
    assert made.setup("127.0.0.1", port)["steps"] >= 3
    rows = [made.train_step() for _ in range(3)]
    held_out = made.evaluate()
    made.export(out)
    made.close()
    timed = ("learner/step_s", "learner/tokens_per_s")
    return {"rows": [{k: v for k, v in row.items() if k not in timed} for row in rows], "held_out": held_out}


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_any_number_of_ranks_and_any_stage_train_the_same_model(tmp_path: Path, kind: str) -> None:
    arguments = items(tmp_path, kind, tmp_path / "unused", "reward_model.batch_size=6", "learner.optimizer.lr=1e-3")
    (one,) = run_ranks(three_steps, 1, arguments, 0, str(tmp_path / "out-1-0"))
    expected = weights(tmp_path / "out-1-0")
    for stage in (0, 3):
        out = tmp_path / f"out-2-{stage}"
        answers = run_ranks(three_steps, 2, arguments, stage, str(out))
        assert answers[0] == answers[1]
        for found, wanted in zip(answers[0]["rows"], one["rows"], strict=True):
            assert found["reward_model/loss"] == pytest.approx(wanted["reward_model/loss"], abs=1e-5)
            assert found["train/grad_norm"] == pytest.approx(wanted["train/grad_norm"], rel=1e-3)
        found = weights(out)
        assert found.keys() == expected.keys()
        # Adam's first steps are as large for a gradient of rounding errors as for any other: the mean is what must
        # agree.
        assert all(float((found[name] - expected[name]).abs().mean()) < 1e-4 for name in expected)
        assert answers[0]["held_out"][0]["accuracy"] == pytest.approx(one["held_out"][0]["accuracy"])


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_a_trained_model_distinguishes_good_from_bad_and_serves(tmp_path: Path, kind: str) -> None:
    from tests.unit.reward_support import judge, reward, scorer

    run = tmp_path / "run"
    told = finish(start_r1ray("reward-model", CONFIG, *items(tmp_path, kind, run)))
    assert "finished: step" in told
    report = report_of(run)
    (figures,) = report["held_out"].values()
    assert figures["accuracy"] >= 0.9
    assert abs(figures["length_correlation"]) < 0.9
    assert report["steps"] == len(read_metrics(run))
    last = read_evaluations(run)[-1]
    assert (last["step"], last["accuracy"]) == (report["steps"], figures["accuracy"])
    losses = [row["reward_model/loss"] for row in read_metrics(run)]
    assert sum(losses[-3:]) < sum(losses[:3])

    from transformers import AutoModelForSequenceClassification

    loaded = AutoModelForSequenceClassification.from_pretrained(run / "final")
    assert loaded.config.num_labels == 1

    asked = ({"role": "user", "content": "question 99"},)
    model = reward("model", path=str(run / "final"), kind=kind, judge=report["judge"], batch_size=2)
    with scorer(model) as s:
        s.check()
        good, bad = (judge(s, text, messages=asked) for text in ("yes", "no"))
    assert good.error is None
    assert good.reward > bad.reward


def test_a_killed_training_continues_from_its_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    more = ("reward_model.epochs=40", "checkpoint.every_steps=2", "learner.optimizer.lr=1e-3")
    quiet, run = tmp_path / "quiet", tmp_path / "run"
    finish(start_r1ray("reward-model", CONFIG, *items(tmp_path, "pairwise", quiet, *more)))
    # A process group of its own, so that the kill reaches Ray and the rank as well.
    killed = start_r1ray(
        "reward-model",
        CONFIG,
        *items(tmp_path, "pairwise", run, *more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    fourth = "step_000004"
    wait_for(
        killed,
        "the fourth checkpoint",
        lambda: any(m.parent.name >= fourth for m in run.glob("checkpoints/step_*/manifest.json")),
    )
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(60)
    assert not (run / "final").exists()
    again = finish(start_r1ray("reward-model", CONFIG, *items(tmp_path, "pairwise", run, *more)), code=2)
    assert f"r1ray reward-model --resume {run}" in again.replace("\n", "")
    shutil.copytree(run, tmp_path / "other")

    finish(start_r1ray("reward-model", "--resume", run))
    expected, found = weights(quiet / "final"), weights(run / "final")
    assert all(found[name].equal(expected[name]) for name in expected)
    assert report_of(run) == report_of(quiet)
    assert "learner_started" in [event["kind"] for event in read_events(run)]

    rows = (tmp_path / "data.jsonl").read_text()
    (tmp_path / "data.jsonl").write_text(rows.replace("question 1", "question one"))
    told = finish(start_r1ray("reward-model", "--resume", tmp_path / "other"), code=3)
    assert "the preferences differ from those that the run" in " ".join(told.split())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("reward_model.kind=pointwise", "response = None: expected a string"),
        ("reward_model.held_out=1e-9", "holds out none of 24 rows"),
        ("model.max_length=8", "leaves no preference to train on: 24 too_long"),
        ("learner.optimizer.warmup_steps=1000", "is more than the run's"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(tmp_path: Path, change: str, told: str) -> None:
    run = tmp_path / "refused"
    output = finish(start_r1ray("reward-model", CONFIG, *items(tmp_path, "pairwise", run), change), code=2)
    assert told in " ".join(output.split())
    assert not run.exists()


def test_a_dry_run_shows_the_memory_without_logits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "r1ray", "reward-model", str(CONFIG), "--dry-run"]
    done = subprocess.run(
        [*command, *items(tmp_path, "pairwise", tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "learner rank" in done.stdout
    assert "activations" in done.stdout
    assert "logits" not in done.stdout
