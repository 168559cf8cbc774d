"""The examples of user-defined code, loaded by import path as their configurations say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from learner.assemble import batch_advantages
from learner.batch import Sequence, make_micro_batch
from learner.metrics import MetricSums
from learner.objective import MAXIMA, MEANS, Denominators, PolicyObjective
from learner.plugins import load_advantage
from r1ray.config.load import load_config
from r1ray.data.source import PromptSource
from r1ray.rewards.base import Sample
from r1ray.rewards.scorer import Scorer
from r1ray.types import BatchManifest, GroupSummary
from r1ray.util.imports import add_import_folders
from tests.unit.data_helpers import ByteTokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _beside_their_configuration() -> None:
    """As `r1ray train tiny examples/own_reward.yaml` does."""
    add_import_folders([EXAMPLES])


def scores(config_file: str, samples: list[Sample]) -> list[dict[str, float]]:
    config = load_config(["tiny", str(EXAMPLES / config_file)], ["reward_worker.timeout_s=60"]).config
    scorer = Scorer(config.rewards, config.reward_worker, processors=1)
    try:
        scorer.check()
        pending = [scorer.begin(sample) for sample in samples]
        results = [p.result().score for p in pending]
    finally:
        scorer.close()
    assert [score.error for score in results] == [None] * len(results)
    return [score.parts for score in results]


def test_user_defined_reward() -> None:
    meta = {"synthetic": "arithmetic", "params": {}}
    short, long = (
        Sample(response=f"<think>{'hm ' * n}</think> <answer>7</answer>", answer="7", meta=meta) for n in (10, 100)
    )
    parts = scores("own_reward.yaml", [short, long])
    assert [p["own_reward:brevity"] for p in parts] == [1.0, 0.5]
    assert [p["accuracy"] for p in parts] == [1.0, 1.0]


def test_user_defined_task_and_its_checker() -> None:
    config = load_config(["tiny", str(EXAMPLES / "own_task.yaml")]).config
    source = PromptSource(config.data.train, config.data, ByteTokenizer(), seed=0)
    prompts = [source.task_at(i) for i in range(20)]
    assert len({p.prompt_id for p in prompts}) == 20
    assert source.task_at(7).messages == prompts[7].messages
    word = prompts[0].messages[0]["content"].split('"')[1]
    assert prompts[0].answer == word[::-1]
    right, wrong = (
        Sample(response=f"<answer>{text}</answer>", answer=prompts[0].answer, meta=prompts[0].meta)
        for text in (f'"{word[::-1].upper()}".', word)
    )
    assert scores("own_task.yaml", [right, wrong]) == [{"accuracy": 1.0}, {"accuracy": 0.0}]


def test_user_defined_advantage_on_a_batch() -> None:
    config = load_config(["tiny", str(EXAMPLES / "own_algorithm.yaml")], ["algorithm.overlong_buffer_tokens=0"]).config
    rewards = [(1.0, 0.0, 0.0, 0.0), (2.0, 2.0, 2.0, 2.0), (0.0, 1.0, 2.0, 100.0)]
    groups = tuple(
        GroupSummary(
            group_id=str(i),
            index=i,
            prompt_tokens=3,
            completion_tokens=(5, 5, 5, 5),
            rewards=row,
            min_policy_version=0,
            max_policy_version=0,
        )
        for i, row in enumerate(rewards)
    )
    manifest = BatchManifest(step=0, groups=groups)
    found = batch_advantages(manifest, load_advantage(config.algorithm.advantage), config)
    assert found[0].tolist() == [2.0, 0.0, 0.0, 0.0]
    assert found[1].tolist() == [0.0] * 4
    # Median 1.5; absolute deviations 1.5, 0.5, 0.5 and 98.5, whose median is 1.
    assert found[2] == pytest.approx([-1.5 / 1.4826, -0.5 / 1.4826, 0.5 / 1.4826, 98.5 / 1.4826])


def test_user_defined_loss_through_the_objective() -> None:
    """One token per completion, ratios 1, 4, 4 and advantages 1, 1, -1, clips of 0.2."""
    items = ["algorithm.clip_low=0.2", "algorithm.clip_high=0.2", "algorithm.kl_coefficient=0"]
    items += ["algorithm.entropy_coefficient=0", "algorithm.loss_aggregation=token", "algorithm.importance=behavior"]
    config = load_config(["tiny", str(EXAMPLES / "own_algorithm.yaml")], items).config
    behavior = torch.tensor([-2.0, -2.0, -2.0])
    new = (behavior + torch.tensor([1.0, 4.0, 4.0]).log()).requires_grad_()
    batch = make_micro_batch(
        [
            Sequence(
                prompt=np.zeros(2, dtype=np.int32),
                completion=np.zeros(1, dtype=np.int32),
                temperature=1.0,
                behavior_logprobs=behavior[i : i + 1].numpy(),
                versions=np.zeros(1, dtype=np.int64),
                advantage=advantage,
                trained=True,
            )
            for i, advantage in enumerate((1.0, 1.0, -1.0))
        ],
        torch.device("cpu"),
    )
    sums = MetricSums(means=MEANS, maxima=MAXIMA, device=torch.device("cpu"))
    loss = PolicyObjective(config).loss(
        lambda tokens: (new, torch.zeros(3)),
        batch,
        Denominators(tokens=3, sequences=3),
        sums,
        unchanged_version=None,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx((-1.0 - 1.2 + 3.0) / 3)  # without the second clip the last would be 4
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([-1 / 3, 0.0, 0.0])
    assert sums.reduce(lambda values, op: values)[0]["train/clip_fraction"] == pytest.approx(2 / 3)
