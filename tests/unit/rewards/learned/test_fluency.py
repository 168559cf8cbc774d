"""Fluency against log-probabilities computed token by token, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from r1ray.config.schema import RewardConfig, RewardWorkerConfig
from r1ray.errors import ConfigError
from r1ray.rewards.base import Sample
from r1ray.rewards.learned import fluency
from r1ray.rewards.learned.fluency import Fluency, LanguageModel, mean_logprobs
from r1ray.rewards.scorer import Scorer
from tests.integration.models import random_model

ASKED = ({"role": "user", "content": "Why?"},)


class Letters:
    eos_token_id = 0
    chat_template = None

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(c) for c in text]


def by_hand(model: PreTrainedModel, ids: list[int], count: int) -> float:
    """One forward pass for each token of the response."""
    total = 0.0
    for i in range(len(ids) - count, len(ids)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:i]])).logits[0, -1]
        total += float(torch.log_softmax(logits, dim=-1)[ids[i]])
    return total / count


def test_rows_of_any_length_have_the_mean_over_the_tokens_of_their_response() -> None:
    model = random_model(seed=0).eval()
    rows = [([5, 6, 7, 8], 2), (list(range(20, 40)), 15), ([9, 3], 1), ([1, 2, 3, 4, 5, 6, 7], 1)]
    assert mean_logprobs(model, rows) == pytest.approx([by_hand(model, *row) for row in rows], abs=1e-5)


def test_the_prompt_is_context_and_the_end_token_counts_if_the_response_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def scores(model: object, rows: list[tuple[list[int], int]]) -> list[float]:
        seen.extend(("".join(map(chr, ids)), count) for ids, count in rows)
        return [-2.0] * len(rows)

    monkeypatch.setattr(fluency.LanguageModel, "load", lambda *_: (Letters(), None))
    monkeypatch.setattr(fluency, "mean_logprobs", scores)
    config = RewardConfig(name="fluency", weight=0.0, params={"path": "m", "floor": -9})
    scorer = Scorer([config], RewardWorkerConfig())
    try:
        results = [
            scorer.begin(Sample(response=text, messages=ASKED, finish_reason=reason)).result().score
            for text, reason in (("yes", "stop"), ("yes", "length"), ("", "stop"))
        ]
    finally:
        scorer.close()
    assert [score.parts["fluency"] for score in results] == [-2.0, -2.0, -9.0]
    assert [score.reward for score in results] == [0.0] * 3
    assert seen == [("User: Why?\nAssistant: yes\0", 4), ("User: Why?\nAssistant: yes", 3)]


def test_no_value_is_below_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fluency.LanguageModel, "load", lambda *_: (Letters(), None))
    monkeypatch.setattr(fluency, "mean_logprobs", lambda model, rows: [-math.inf] * len(rows))
    reward = Fluency(path="m", server=LanguageModel())
    asked = reward(Sample(response="x", messages=ASKED))
    assert not isinstance(asked, float)
    assert asked.function() == -20.0


@pytest.mark.parametrize("bad", [{"floor": 0.0}, {"floor": float("nan")}, {"batch_size": 0}, {"timeout_s": 0.0}])
def test_wrong_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="fluency: "):
        Fluency(path="m", server=LanguageModel(), **bad)


def test_a_folder_without_a_language_model_is_refused_at_the_start(tmp_path: Path) -> None:
    reward = Fluency(path=str(tmp_path), server=LanguageModel())
    with pytest.raises(ConfigError, match=r"no config\.json"):
        reward.check()
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(ConfigError, match=r"expected a \.\.\.ForCausalLM"):
        reward.check()
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    reward.check()
