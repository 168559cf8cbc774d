"""The examples of user-defined code, loaded by import path as their configurations say."""

from __future__ import annotations

from pathlib import Path

from r1ray.config.load import load_config
from r1ray.data.source import PromptSource
from r1ray.rewards.base import Sample
from r1ray.rewards.scorer import Scorer
from tests.unit.data_helpers import ByteTokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"


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
    assert [p["examples.own_reward:brevity"] for p in parts] == [1.0, 0.5]
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
