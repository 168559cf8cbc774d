"""Section `queue`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, Range


@dataclass
class QueueConfig:
    """The replay queue: leases, retries and staleness."""

    max_staleness: Annotated[
        int,
        Range(ge=0),
        Doc("0: synchronous and on-policy; n: a group is trained at most n steps after it was started"),
    ] = 1
    lease_timeout_s: Annotated[float, Range(gt=0), Doc("a group that is not scored by then is leased again")] = 600.0
    max_attempts: Annotated[int, Range(ge=1), Doc("failed leases of one prompt before it is dropped")] = 3
    max_requeues: Annotated[
        int, Range(ge=1), Doc("leases of one prompt that expire or end with their worker's death before it is dropped")
    ] = 10
    stale_policy: Annotated[
        Literal["requeue", "drop"], Doc("what happens to the prompt of a group that became too stale")
    ] = "requeue"
    reserve_after_stale: Annotated[
        int,
        Range(ge=0),
        Doc("stale groups of a prompt after which the step waits for its next group; 0: for every group"),
    ] = 1
    keep_payload_steps: Annotated[
        int | None,
        Range(ge=1),
        Doc("null: keep all payloads for `r1ray inspect`; n: those of the last n trained steps"),
    ] = None
