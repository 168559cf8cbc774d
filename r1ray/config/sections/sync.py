"""Section `sync`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, Range


@dataclass
class SyncConfig:
    """Transfer of weights from the learner to the rollout workers."""

    transport: Annotated[
        Literal["auto", "gloo", "nccl", "ipc"], Doc("how the weights travel; auto: chosen by the devices")
    ] = "auto"
    encoding: Annotated[
        Literal["full", "delta"],
        Doc("delta: only values that changed since the last sync, over gloo; the weights that arrive are the same"),
    ] = "full"
    senders: Annotated[
        Literal["first", "all"],
        Doc(
            "learner ranks that send: the first, which gathers sharded weights, or all, each the part that it holds, "
            "over gloo"
        ),
    ] = "first"
    bucket_bytes: Annotated[int, Range(ge=1024), Doc("size of the buckets in which weights are sent")] = 67108864
    deadline_s: Annotated[float, Range(gt=0), Doc("deadline of one sync")] = 60.0
    bucket_deadline_s: Annotated[float, Range(gt=0), Doc("deadline of one bucket")] = 30.0
    digest: Annotated[
        Literal["full", "wire", "none"],
        Doc("what is compared with the weights sent: those that the engine serves, the bytes received, or nothing"),
    ] = "full"
    kv_cache: Annotated[
        Literal["recompute", "keep"],
        Doc(
            "keys and values of sequences under way after a sync: computed again by the new policy, or kept from the "
            "old one"
        ),
    ] = "recompute"
    interface: Annotated[str | None, Doc("network interface; null: that of the learner node's address")] = None
