"""Workload and outcome of a simulated run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The workload and what goes wrong. Producers: `r1ray plan`, `calibrate`. Consumer: `simulate`."""

    steps: int = 20  # training steps to simulate
    mean_tokens: float  # of a completion
    spread: float = 0.7  # standard deviation over mean of its log-normal length
    lengths: tuple[int, ...] = ()  # measured lengths, which are drawn in place of the log-normal
    prompt_tokens: float = 256.0
    mtbf_hours: float | None = None  # between failures of one host; None: none fails
    spot_hours: float | None = None  # until the host of an engine is reclaimed; None: never
    slow_share: float = 0.0  # engines that run at half their speed
    cores: int | None = None  # cores that all processes share; None: each has devices of its own
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a simulated run did, without its first quarter, which fills the pipeline. Producer: `simulate`."""

    step_s: float  # mean seconds from step to step
    tokens_s: float  # completion tokens trained a second
    learner_idle: float  # share of the time that the learner waits for a batch
    rollout_idle: float  # share of the engines' time without a sequence
    staleness: float  # mean, in steps
    stale_groups: int  # dropped and generated again
    lost_engines: int
    lost_learners: int


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def log_normal(average: float, spread: float) -> tuple[float, float]:
    """Parameters of the log-normal distribution with this mean and this standard deviation over mean."""
    variance = math.log1p(spread**2)
    return math.log(average) - variance / 2, math.sqrt(variance)
