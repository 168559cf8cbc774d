"""Checks of `learner.expert_parallel`."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem
from r1ray.config.schema import Config

KEY = "learner.expert_parallel"

DIVISIBLE = ("qwen3_moe", "deepseek_v3")
"""Types of models whose experts the learner can divide: AutoEP has a preset for them, and a test trains them."""


def nearest_divisor(wanted: int, *numbers: int) -> int:
    """Return the common divisor of `numbers` that is nearest to `wanted`."""
    divisors = [n for n in range(1, min(numbers) + 1) if not any(number % n for number in numbers)]
    return min(divisors, key=lambda n: (abs(n - wanted), n))


def expert_parallel(config: Config) -> Iterator[Problem]:
    """Find groups of ranks that do not add up to all ranks, and settings that divided experts cannot have."""
    learner = config.learner
    n, ranks = learner.expert_parallel, learner.ranks
    if n == 1:
        return
    if ranks % n:
        fix = f"use {nearest_divisor(n, ranks)}, or learner.ranks={-(-ranks // n) * n}"
        yield problem(config, KEY, f"does not divide learner.ranks = {ranks}", fix)
    if learner.zero_stage == 3:
        message = "shards every weight over all ranks; learner.expert_parallel > 1 divides the experts instead"
        yield problem(config, "learner.zero_stage", message, "use 2, or learner.expert_parallel=1")
    if learner.sequence_parallel > 1:
        message = "was not tried together with learner.sequence_parallel > 1"
        yield problem(config, KEY, message, "use 1, or learner.sequence_parallel=1")
    if config.model.lora.rank is not None:
        message = "divides experts, which are frozen with model.lora.rank"
        yield problem(config, KEY, message, "use 1, or model.lora.rank=null")
    if learner.offload_optimizer:
        message = "was not tried together with learner.offload_optimizer"
        yield problem(config, KEY, message, "use 1, or learner.offload_optimizer=false")


def no_expert_parallel(config: Config) -> Iterator[Problem]:
    """Find divided experts in the training of a reward model."""
    if config.learner.expert_parallel > 1:
        yield problem(config, KEY, "divides the experts of a policy, not those of a reward model", "use 1")
