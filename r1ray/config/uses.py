"""What a configuration is for: the command that reads it, and the processes that the command starts."""

from __future__ import annotations

from typing import Literal

from r1ray.config.schema import Config

Use = Literal["train", "sft", "reward-model", "sample", "eval"]
"""The command that a configuration is for. Combinations of keys that it does not read are not checked."""

_PROCESSES: dict[Use, tuple[str, ...]] = {
    "train": ("learner", "rollout", "reward_worker"),
    "sft": ("learner",),
    "reward-model": ("learner",),
    "sample": ("rollout", "reward_worker"),
    "eval": ("rollout", "reward_worker"),
}


def replays(config: Config, use: Use = "train") -> bool:
    """Whether the run trains on the groups of a recorded run instead of new ones."""
    return use == "train" and config.replay.run is not None


def processes(config: Config, use: Use) -> tuple[str, ...]:
    """The sections of the processes that the command starts."""
    return ("learner",) if replays(config, use) else _PROCESSES[use]
