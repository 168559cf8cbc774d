"""Section `recovery`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, Range


@dataclass
class RecoveryConfig:
    """Restarts, rollbacks and stalls; see docs/fault-tolerance.md."""

    max_worker_restarts: Annotated[
        int,
        Range(ge=0),
        Doc(
            "restarts in a row, times the number of workers: of rollout workers (reset by one that generates) and of "
            "reward workers (reset by a training step)"
        ),
    ] = 10
    max_learner_restarts: Annotated[int, Range(ge=0), Doc("in a row; reset by a checkpoint")] = 5
    max_queue_restarts: Annotated[
        int, Range(ge=0), Doc("restarts of the queue actor in a row; reset by a training step")
    ] = 20
    max_missed_syncs: Annotated[
        int, Range(ge=1), Doc("weight syncs in a row that a rollout worker may miss before it is replaced")
    ] = 5
    outage_timeout_s: Annotated[
        float,
        Range(gt=0),
        Doc("wait for the end of an outage: a full disk, a judge that is down, a restarting queue or reward worker"),
    ] = 600.0
    max_nan_steps: Annotated[
        int, Range(ge=1), Doc("skipped steps in a row before the policy rolls back to the checkpoint before them")
    ] = 3
    max_nan_rollbacks: Annotated[
        int, Range(ge=0), Doc("such rollbacks in a row; reset once training has passed those steps")
    ] = 2
    max_dropped_batches: Annotated[
        int,
        Range(ge=1),
        Doc("groups dropped in a row, in batches, before the run ends because nothing is left to train on"),
    ] = 10
    max_memory_fraction: Annotated[
        float,
        Range(gt=0, le=1),
        Doc("share of a host's memory in use above which its rollout workers lease no more groups"),
    ] = 0.9
    stall_timeout_s: Annotated[float, Range(gt=0), Doc("time without progress before a diagnosis is written")] = 600.0
    stall_policy: Annotated[Literal["warn", "restart", "abort"], Doc("what happens after the diagnosis")] = "warn"
