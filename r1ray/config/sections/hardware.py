"""Section `hardware`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, Range

Gpu = Literal["a100-40", "a100-80", "h100-80", "h200-141", "b200-180", "b300-288", "l40s-48", "cpu"]


@dataclass
class HardwareConfig:
    """The hosts that the run is meant for. A start compares them with what the run needs."""

    gpu: Annotated[
        Gpu | None,
        Doc("kind of GPU, with its memory in GB; cpu: hosts without; null: not stated, so nothing is compared"),
    ] = None
    per_node: Annotated[int, Range(ge=1), Doc("GPUs of one host; of cpu: its cores")] = 8
    nodes: Annotated[int, Range(ge=1), Doc("number of hosts of this kind")] = 1
    host_gib: Annotated[float, Range(gt=0), Doc("memory of one host")] = 1024.0
    disk_mb_s: Annotated[
        float, Range(gt=0), Doc("MB/s at which each host reads models and writes and reads run.dir, all at once")
    ] = 1000.0
    network_gb_s: Annotated[float, Range(gt=0), Doc("GB/s of one host's network")] = 50.0
