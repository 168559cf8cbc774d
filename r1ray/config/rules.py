"""Predicates over a configuration that several packages share, and the metric names that they concern."""

from __future__ import annotations

from r1ray.config.schema import Config

KL = "train/kl"
LENGTH_CORRELATION = "reward/length_correlation"
"""Metric of the whole reward; the metrics of single rewards follow it after a slash."""

LEARNED_KINDS = ("model", "judge")
"""Kinds of rewards that a model gives, and that a policy can therefore fool."""


def learned_rewards(config: Config) -> list[str]:
    """Names of the rewards that a model gives."""
    return [reward.name for reward in config.rewards if reward.name.partition("/")[0] in LEARNED_KINDS]


def keeps_reference(config: Config) -> bool:
    """Whether the learner keeps a reference policy, to be trained towards or to be measured against.

    A policy can fool a learned reward, so runs with such a reward always measure the distance to the reference.
    """
    return (
        config.algorithm.kl_coefficient > 0
        or config.hacking_monitor.max_kl is not None
        or bool(learned_rewards(config))
    )
