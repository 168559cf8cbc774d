"""Learning rate as a pure function of the training step, so that a resume needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Callable

from r1ray.config.schema import OptimizerConfig

Schedule = Callable[[float], float]
"""Completed share of the decay, in [0, 1] -> remaining share of the range from lr to the floor."""

SCHEDULES: dict[str, Schedule] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


def learning_rate(step: int, steps: int, optimizer: OptimizerConfig) -> float:
    """The learning rate of training step `step` (from 0) of `steps`.

    Linear warm-up reaches `lr` at step `warmup_steps - 1`; then the schedule falls to `lr * min_lr_ratio`, the value of
    the step after the last. With no warm-up, step 0 trains at the full rate.
    """
    if step < optimizer.warmup_steps:
        return optimizer.lr * (step + 1) / optimizer.warmup_steps
    done = (step - optimizer.warmup_steps) / max(1, steps - optimizer.warmup_steps)
    left = SCHEDULES[optimizer.schedule](min(1.0, done))
    return optimizer.lr * (optimizer.min_lr_ratio + (1.0 - optimizer.min_lr_ratio) * left)
