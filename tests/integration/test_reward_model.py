"""A reward model is trained by the command, loaded by transformers, and serves as a reward."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.learner_support import run_ranks
from tests.integration.processes import start_r1ray

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def write_rows(file, kind: str) -> None:
    """What is good, and what is safe, ends in `yes`; its length says nothing."""
    rows = []
    for n in range(24):
        filler = "ab " * (n % 5)
        good, bad = f"{filler}yes", f"{'cd ' * ((n + 2) % 5)}no"
        if kind == "pairwise":
            rows.append({"prompt": f"question {n}", "chosen": good, "rejected": bad})
        else:
            rows += [{"prompt": f"question {n}", "response": text, "safe": text is good} for text in (good, bad)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_packed_in_training_and_padded_in_serving_give_the_same_scores(tmp_path):
    import torch

    from learner.preference.model import load_base, pack_examples
    from learner.preference.rows import Example
    from r1ray.config.schema import ModelConfig
    from r1ray.rewards.learned.preference import load_reward_model, scores_of
    from tests.integration.models import random_model, write_model

    write_model(random_model(0), tmp_path / "base")
    trained = load_base(ModelConfig(path=str(tmp_path / "base"), dtype="float32"), pad_token_id=0, seed=0)
    trained.hf.save_pretrained(tmp_path / "base")
    rows = [[7, 8, 9], list(range(1, 60)), [5], list(range(90, 120))]
    pairs = [Example(prompt="", sequences=(tuple(a), tuple(b)), lengths=(1, 1)) for a, b in (rows[:2], rows[2:])]
    with torch.no_grad():
        packed = trained(pack_examples(pairs, torch.device("cpu"))).tolist()
    _, served = load_reward_model(tmp_path / "base", "cpu", "float32")
    assert scores_of(served, rows) == pytest.approx(packed, rel=1e-4, abs=1e-5)
    assert max(packed) - min(packed) > 0.01


def three_steps(rank: int, world_size: int, port: int, folder: str, kind: str, stage: int) -> object:
    import os

    from learner.preference.train import RewardModelRank, Settings

    os.environ["OMP_NUM_THREADS"] = "1"
    settings = Settings(
        kind=kind,
        judge="response",
        batch_size=6,
        lr=1e-3,
        max_length=64,
        micro_batch_tokens=160,
        held_out=0.25,
        ranks=world_size,
        zero_stage=stage,
    )
    made = RewardModelRank(data=Path(folder) / "data.jsonl", base=Path(folder) / "base", settings=settings, rank=rank)
    assert made.setup("127.0.0.1", port)["steps"] >= 3
    losses = [made.train_step() for _ in range(3)]
    report = made.report()
    made.write(Path(folder) / f"out-{world_size}-{stage}", report)
    made.close()
    return {"losses": losses, "report": report}


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_any_number_of_ranks_and_any_stage_train_the_same_model(tmp_path, kind):
    from safetensors.torch import load_file

    from tests.integration.models import random_model, write_model

    write_model(random_model(0), tmp_path / "base")
    write_rows(tmp_path / "data.jsonl", kind)
    (one,) = run_ranks(three_steps, 1, str(tmp_path), kind, 0)
    expected = load_file(tmp_path / "out-1-0" / "model.safetensors")
    for stage in (0, 3):
        answers = run_ranks(three_steps, 2, str(tmp_path), kind, stage)
        assert answers[0] == answers[1]
        assert answers[0]["losses"] == pytest.approx(one["losses"], abs=1e-5)
        found = load_file(tmp_path / f"out-2-{stage}" / "model.safetensors")
        assert found.keys() == expected.keys()
        # Adam's first steps are as large for a gradient of rounding errors as for any other: the mean is what must agree.
        assert all(float((found[name] - expected[name]).abs().mean()) < 1e-4 for name in expected)
        measured = answers[0]["report"]["held_out"]
        assert measured["accuracy"] == pytest.approx(one["report"]["held_out"]["accuracy"])


@pytest.mark.parametrize("kind", ["pairwise", "pointwise"])
def test_a_trained_model_tells_good_from_bad_and_serves(tmp_path, kind):
    from tests.integration.models import random_model, write_model
    from tests.unit.reward_support import judge, reward, scorer

    base, out, data = tmp_path / "base", tmp_path / "out", tmp_path / "data.jsonl"
    write_model(random_model(0), base)
    write_rows(data, kind)
    options = {"model": base, "out": out, "kind": kind, "epochs": 8, "batch-size": 8, "lr": 3e-3, "max-length": 128}
    options |= {"micro-batch-tokens": 512, "held-out": 0.25}
    command = [sys.executable, "-m", "r1ray", "reward-model", "train", str(data)]
    command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "reward_report.json").read_text())
    assert json.loads(done.stdout) == report
    assert report["held_out"]["accuracy"] >= 0.9
    assert abs(report["held_out"]["length_correlation"]) < 0.9

    from transformers import AutoModelForSequenceClassification

    loaded = AutoModelForSequenceClassification.from_pretrained(out)
    assert loaded.config.num_labels == 1

    asked = ({"role": "user", "content": "question 99"},)
    with scorer(reward("model", path=str(out), kind=kind, judge=report["judge"], batch_size=2)) as s:
        s.check()
        good, bad = (judge(s, text, messages=asked) for text in ("yes", "no"))
    assert good.error is None
    assert good.reward > bad.reward


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    from safetensors.torch import load_file

    from tests.integration.models import random_model, write_model

    write_model(random_model(0), tmp_path / "base")
    write_rows(tmp_path / "data.jsonl", "pairwise")
    options = {"model": tmp_path / "base", "kind": "pairwise", "epochs": 40, "batch-size": 8, "lr": 1e-3}
    options |= {"max-length": 128, "micro-batch-tokens": 512, "held-out": 0.25, "checkpoint-steps": 2}
    words = ["reward-model", "train", str(tmp_path / "data.jsonl")]
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    command, quiet, out = [sys.executable, "-m", "r1ray", *words], tmp_path / "quiet", tmp_path / "out"
    subprocess.run([*command, "--out", str(quiet)], capture_output=True, timeout=400, check=True)
    # A group of its own, so that the kill meets Ray and the rank as well.
    killed = start_r1ray(
        *words, "--out", out, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 200
    checkpoints = tmp_path / "out.checkpoints"
    while all(m.parent.name < "step_000004" for m in checkpoints.glob("step_*/manifest.json")):
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait(60)
    assert not out.exists()
    again = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 2
    assert "go on with --resume" in again.stderr
    resumed = subprocess.run(
        [*command, "--out", str(out), "--resume"], capture_output=True, text=True, timeout=400, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    expected, found = (load_file(folder / "model.safetensors") for folder in (quiet, out))
    assert all(found[name].equal(expected[name]) for name in expected)
    assert json.loads((out / "reward_report.json").read_text()) == json.loads(
        (quiet / "reward_report.json").read_text()
    )
    assert [p.name for p in (tmp_path / "out.checkpoints").iterdir()] == ["training.json"]
