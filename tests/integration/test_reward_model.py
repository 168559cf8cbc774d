"""A reward model is trained by the command, loaded by transformers, and serves as a reward."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


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
    from r1ray.rewards.preference import load_reward_model, scores_of
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
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
