"""Section `deadlines`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class DeadlineConfig:
    """How long the run waits for one operation before it counts as failed."""

    actor_start_s: Annotated[
        float,
        Range(gt=0),
        Doc("start of an actor until it is ready; before that, the wait for the nodes of all learner ranks"),
    ] = 900.0
    rpc_s: Annotated[float, Range(gt=0), Doc("one call to an actor")] = 60.0
    step_s: Annotated[float, Range(gt=0), Doc("one training step of the learner")] = 1800.0
    batch_s: Annotated[float, Range(gt=0), Doc("wait for a full batch")] = 3600.0
    checkpoint_s: Annotated[float, Range(gt=0), Doc("writing or reading of one checkpoint")] = 1800.0
    evaluation_s: Annotated[
        float, Range(gt=0), Doc("one evaluation during training; one part of `r1ray sample` and `r1ray eval`")
    ] = 3600.0
    shutdown_s: Annotated[float, Range(gt=0), Doc("grace after SIGTERM, to write a checkpoint and exit")] = 60.0
    collective_s: Annotated[
        float, Range(gt=0), Doc("one collective among learner ranks, once all of them are ready")
    ] = 600.0
