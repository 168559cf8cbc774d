"""Reward hacking: what is measured, and when it is reported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch

from learner.metrics import LengthRewardCorrelation, MetricSums
from r1ray.config.load import load_config
from r1ray.config.rules import keeps_reference
from r1ray.config.schema import Config, RewardConfig
from r1ray.control.hacking_monitor import HackingWatch
from r1ray.errors import ConfigError
from r1ray.types import RolloutGroup, Score, ScoredGroup


def told(config: Config, rows: list[dict[str, float]]) -> list[tuple[int, str]]:
    events: list[tuple[int, str]] = []
    watch = HackingWatch(config)
    for row in rows:
        watch.step(row, lambda kind, **fields: events.append((fields["step"], f"{kind} {fields['metric']}")))
    return events


def test_a_warning_comes_after_so_many_steps_in_a_row_and_again_only_after_a_fall() -> None:
    config = Config()
    config.hacking_monitor.max_kl, config.hacking_monitor.consecutive_steps = 0.1, 2
    values = [0.2, 0.3, 0.3, 0.05, 0.2, 0.2]
    found = told(config, [{"step": i, "train/kl": value} for i, value in enumerate(values)])
    assert found == [(1, "reward_hacking train/kl"), (5, "reward_hacking train/kl")]
    # Steps that are trained again are counted again.
    again = [{"step": step, "train/kl": 0.2} for step in (0, 0, 1)]
    assert told(config, again) == [(1, "reward_hacking train/kl")]


def test_only_rewards_that_a_model_gives_are_watched_for_length() -> None:
    config = Config(rewards=[RewardConfig(name="accuracy"), RewardConfig(name="model/helpful")])
    config.hacking_monitor.max_length_correlation, config.hacking_monitor.consecutive_steps = 0.5, 1
    row = {"step": 0.0, "reward/length_correlation": 0.9, "reward/length_correlation/model/helpful": 0.6}
    assert told(config, [row]) == [(0, "reward_hacking reward/length_correlation/model/helpful")]
    assert told(config, [{"step": 0.0}]) == []


def test_a_kl_that_is_watched_needs_a_reference() -> None:
    config = load_config(["tiny"], ["hacking_monitor.max_kl=0.2", "algorithm.reference_refresh_steps=10"]).config
    assert keeps_reference(config)
    assert not keeps_reference(load_config(["tiny"], []).config)


def test_a_run_with_a_learned_reward_measures_its_kl() -> None:
    config = load_config(["tiny"], []).config
    config.rewards.append(RewardConfig(name="model/helpful", params={"path": "helpful"}))
    assert keeps_reference(config)
    with pytest.raises(ConfigError, match=r"hacking_monitor\.max_length_correlation"):
        load_config(["tiny"], ["hacking_monitor.max_length_correlation=0.5"])


def group(lengths: list[int], scores: list[dict[str, float]]) -> ScoredGroup:
    """Of completions, only their lengths count."""
    completions = tuple(SimpleNamespace(token_ids=[0] * n) for n in lengths)
    rollout = cast(RolloutGroup, SimpleNamespace(completions=completions))
    return ScoredGroup(rollout=rollout, scores=tuple(Score(reward=0.0, parts=parts) for parts in scores))


def test_length_is_compared_within_groups_and_over_all_ranks() -> None:
    paid = LengthRewardCorrelation(["model"])
    sums = MetricSums(means=paid.means, maxima=(), device=torch.device("cpu"))
    first = group([1, 2, 3, 6], [{"model": x} for x in (1.0, 2.0, 3.0, 6.0)])
    paid.add(first, [0, 1], sums)  # one rank's completions
    paid.add(first, [2, 3], sums)  # another's
    paid.add(group([50, 50], [{"model": -9.0}, {"model": -9.0}]), [0, 1], sums)  # long and badly paid, but evenly
    paid.add(group([1, 9], [{}, {}]), [0, 1], sums)
    observed, _ = sums.reduce(lambda t, _: t)
    assert paid.pop(observed) == pytest.approx({"reward/length_correlation/model": 1.0})
    assert observed == {}
