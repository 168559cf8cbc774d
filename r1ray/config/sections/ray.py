"""Section `ray`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class RayConfig:
    """The Ray cluster, and the custom resources that place actors on its nodes."""

    address: Annotated[str | None, Doc('null: start a local cluster; "auto" or host:port: join one')] = None
    num_cpus: Annotated[
        int | None,
        Range(ge=1),
        Doc(
            "CPUs of the local cluster, which Ray only counts; null: those of the machine; raised to what the actors "
            "request"
        ),
    ] = None
    temp_dir: Annotated[str | None, Doc("folder of the local cluster; null: Ray's own")] = None
    object_store_gib: Annotated[
        float,  # Ray refuses a smaller store than 75 MiB
        Range(ge=0.075),
        Doc("shared memory of the local cluster's object store"),
    ] = 0.3
    rollout_resources: Annotated[
        dict[str, float], Range(ge=0), Doc("custom resources of each rollout worker, e.g. {rollout: 1}")
    ] = field(default_factory=dict)
    learner_resources: Annotated[dict[str, float], Range(ge=0), Doc("custom resources of each learner rank")] = field(
        default_factory=dict
    )
    reward_resources: Annotated[dict[str, float], Range(ge=0), Doc("custom resources of each reward worker")] = field(
        default_factory=dict
    )
    queue_resources: Annotated[dict[str, float], Range(ge=0), Doc("custom resources of the queue actor")] = field(
        default_factory=dict
    )
