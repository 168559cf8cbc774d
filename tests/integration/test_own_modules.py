"""A task, a reward and a loss in files beside the configuration, in every process of a run started from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r1ray.run.metrics import read_metrics
from tests.integration.models import random_model, write_model
from tests.integration.processes import finish, start_r1ray

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
HERE = Path(__file__).parent

OWN = """
from learner.losses import LossInput, TokenLoss
from r1ray.tasks.base import Problem


class Echo:
    def problem(self, index, split, seed):
        text = f"{split} {seed} {index}"
        return Problem(prompt_id=text.replace(" ", "-"), prompt=f"Say {text}.", answer=text)

    def check(self, answer, truth):
        return answer == truth


def letters(sample):
    return float(len(set(sample.response)))


def plain(x: LossInput) -> TokenLoss:
    ratio = (x.logprobs_T - x.old_logprobs_T).exp()
    return TokenLoss(loss_T=-ratio * x.advantages_T, ratio_T=ratio.detach(), clipped_T=(ratio * 0).detach())
"""

CONFIGURATION = """
data:
  train: [{name: echo, path: "own_words:Echo"}]
  evaluation: [{name: echo, path: "own_words:Echo", split: heldout, limit: 4}]
rewards:
  - {name: accuracy, params: {verifier: task}}
  - {name: "own_words:letters", weight: 0.1}
algorithm: {loss: "own_words:plain"}
"""


def test_modules_beside_the_configuration_reach_every_worker(tmp_path: Path) -> None:
    """Also: a Ray address that another run has left behind does not stop this one."""
    for name in ("mine", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "own_words.py").write_text(OWN)
    (tmp_path / "mine" / "own.yaml").write_text(CONFIGURATION)
    write_model(random_model(seed=3), tmp_path / "model")
    words = [HERE / "loop.yaml", tmp_path / "mine" / "own.yaml", "run.dir=run", f"model.path={tmp_path / 'model'}"]
    process = start_r1ray(
        "train",
        *words,
        "run.steps=2",
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "RAY_ADDRESS": "127.0.0.1:1"},
    )
    finish(process)
    rows = read_metrics(tmp_path / "elsewhere" / "run")
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["reward/part/own_words:letters"] > 0 for row in rows)
