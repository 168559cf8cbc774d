"""Every loss learns what is rewarded, on a policy that samples from its own distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.groups import make_completion, make_group, make_prompt
from r1ray.types import Score, ScoredGroup
from tests.integration.learner_support import make_model, make_rank, remake, run_ranks, train_step

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("learner") / "model")


def learns(learner: Any) -> list[float]:
    """Reward 1 where the first token is below 20. The policy samples from its own distribution, one token each."""
    import torch

    rng = np.random.default_rng(3)
    hf = learner._engine.module.hf
    prompts = [rng.integers(0, 61, 4).astype(np.int32) for _ in range(4)]
    rewards = []
    for step in range(30):
        with torch.no_grad():
            ids = torch.tensor(np.stack(prompts), dtype=torch.int64)
            weight = hf.model.embed_tokens.weight
            layout = _rows(ids)
            hidden = hf.model(input_ids=ids.view(1, -1), **layout).last_hidden_state[0, 3::4]
            log_p = (hidden @ weight.T).log_softmax(-1).double().numpy()
        groups = []
        for i, prompt in enumerate(prompts):
            p = np.exp(log_p[i])
            tokens = rng.choice(len(p), size=8, p=p / p.sum())
            completions = [make_completion([t], logprobs=log_p[i][t], version=step) for t in tokens]
            task = make_prompt(i, token_ids=prompt, answer=0, task="bandit", messages=())
            rollout = make_group(f"{i}-0", task, completions)
            scores = tuple(Score(reward=float(t < 20), parts={"accuracy": float(t < 20)}) for t in tokens)
            groups.append(ScoredGroup(rollout=rollout, scores=scores))
        metrics = train_step(learner, step, groups)
        assert metrics["mismatch/max"] < 1e-5
        rewards.append(metrics["reward/mean"])
    return rewards


def _rows(ids: Any) -> dict[str, Any]:
    import torch

    from learner.attention import make_layout

    positions = torch.arange(ids.shape[1]).repeat(len(ids))[None]
    return {"position_ids": positions, "layout": make_layout([ids.shape[1]] * len(ids), torch.device("cpu"))}


def all_variants(rank: int, world_size: int, port: int, model: str) -> Any:
    """One after the other in one process: every loss with the settings that belong to it."""
    variants = {
        "grpo": {},
        "dr_grpo": {"algorithm__advantage": "mean_only", "algorithm__loss_aggregation": "constant"},
        "dapo": {"algorithm__clip_high": 0.28},
        "gspo": {"algorithm__loss_aggregation": "sequence"},
        "cispo": {"algorithm__advantage": "leave_one_out", "algorithm__clip_low": 1.0},
    }
    learner = make_rank(rank, world_size, port, model, {})
    answers = {}
    for name, changes in variants.items():
        sizes = {"rollout__group_size": 8, "rollout__max_new_tokens": 1, "learner__optimizer__lr": 3e-3}
        remake(learner, model, {**changes, **sizes, "algorithm__loss": name})
        answers[name] = learns(learner)
    learner.close()
    return answers


@pytest.fixture(scope="module")
def curves(model: Path) -> dict[str, list[float]]:
    curves: dict[str, list[float]] = run_ranks(all_variants, 1, str(model))[0]
    return curves


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_the_policy_learns_what_is_rewarded(curves: dict[str, list[float]], loss: str) -> None:
    rewards = curves[loss]
    assert np.mean(rewards[:2]) < 0.6
    assert np.mean(rewards[-3:]) > 0.9
