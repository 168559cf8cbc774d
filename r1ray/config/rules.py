"""Predicates over a configuration that several packages share, and the names of the metrics involved."""

from __future__ import annotations

from typing import Literal

from r1ray.config.schema import Config, RewardModelConfig, SftConfig

SupervisedUse = Literal["sft", "reward-model"]
"""The commands that train on fixed rows, without rollouts."""

KL = "train/kl"
LENGTH_CORRELATION = "reward/length_correlation"
"""Metric of the total reward. The metric of a single reward has its name behind a slash."""

TASK_VERIFIERS = {"transpose": "code", "writing": "instructions"}
"""Synthetic task whose answers its own checker cannot judge -> the verifier that does."""

LEARNED_KINDS = ("model", "judge", "fluency")
"""Kinds of rewards that come from a model, which a policy can learn to fool."""


COMPARED_EVERY = 16
"""With `algorithm.routing: compare` the experts of every 16th token of a completion are recorded."""


def recorded_every(config: Config) -> int | None:
    """Return n if the experts of every n-th token of a completion are recorded, None if they are not."""
    return {"ignore": None, "compare": COMPARED_EVERY, "replay": 1}[config.algorithm.routing]


def learned_rewards(config: Config) -> list[str]:
    """Return the names of the rewards that come from a model."""
    return [reward.name for reward in config.rewards if reward.name.partition("/")[0] in LEARNED_KINDS]


def keeps_reference(config: Config) -> bool:
    """Return whether the learner keeps a reference policy, for the KL term of the loss or for measurements.

    A policy can fool a learned reward, so runs with such a reward always measure the distance to the reference.
    """
    return (
        config.algorithm.kl_coefficient > 0
        or config.hacking_monitor.max_kl is not None
        or bool(learned_rewards(config))
    )


def copies_reference(config: Config) -> bool:
    """Return whether the reference policy has weights of its own: with adapters it is the base model without them."""
    return keeps_reference(config) and config.model.lora.rank is None


def row_tokens(config: Config) -> int:
    """The most packed tokens of one forward pass: of one rank, or of the ranks of a sequence group together."""
    return config.learner.sequence_parallel * config.learner.micro_batch_tokens


def supervised_settings(config: Config, use: SupervisedUse) -> SftConfig | RewardModelConfig:
    """The section with the epochs and the batch size of a supervised training: `r1ray sft` or `r1ray reward-model`."""
    return config.reward_model if use == "reward-model" else config.sft
