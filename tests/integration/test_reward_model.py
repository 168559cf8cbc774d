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
    assert report["held_out"]["accuracy"] >= 0.9
    assert abs(report["held_out"]["length_correlation"]) < 0.9

    from transformers import AutoModelForSequenceClassification

    loaded = AutoModelForSequenceClassification.from_pretrained(out)
    assert loaded.config.num_labels == 1

    asked = ({"role": "user", "content": "question 99"},)
    with scorer(reward("model", path=str(out), kind=kind, judge="summary", batch_size=2)) as s:
        s.check()
        good, bad = (judge(s, f"<think>no yes</think>{text}", messages=asked) for text in ("yes", "no"))
    assert good.error is None
    assert good.reward > bad.reward
