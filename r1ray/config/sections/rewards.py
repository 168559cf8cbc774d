"""Sections `rewards` and `reward_worker`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from r1ray.config.annotations import Doc, NonEmpty, Range


@dataclass
class RewardConfig:
    """One reward; the reward of a completion is the weighted sum."""

    name: Annotated[str, NonEmpty(), Doc("accuracy, format, ..., or module:function")] = "???"
    weight: Annotated[float, Range(), Doc("factor in the sum; 0: measured and reported, not trained on")] = 1.0
    params: Annotated[dict[str, Any], Doc("parameters of the reward")] = field(default_factory=dict)


@dataclass
class RewardWorkerConfig:
    """Processes that compute rewards."""

    workers: Annotated[int, Range(ge=1), Doc("reward workers at the start")] = 1
    num_cpus: Annotated[float, Range(ge=0), Doc("Ray CPUs of each worker")] = 0.1
    num_gpus: Annotated[float, Range(ge=0), Doc("Ray GPUs of each worker; only reward models need one")] = 0.0
    timeout_s: Annotated[
        float,
        Range(gt=0),
        Doc("wall clock of one verification; programs have the suite_timeout_s of `code` if it is longer"),
    ] = 10.0
    sandbox: Annotated[
        Literal["bubblewrap", "none"],
        Doc("isolation of code that a model wrote; none: only the limits of a single process"),
    ] = "bubblewrap"
