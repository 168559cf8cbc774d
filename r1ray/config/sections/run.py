"""Section `run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, NonEmpty, Range


@dataclass
class RunConfig:
    """The run: its name, folder, length and seed."""

    name: Annotated[str, NonEmpty(), Doc("name of the run in reports and logs")] = "run"
    dir: Annotated[str, NonEmpty(), Doc("run folder: everything that the run writes")] = "runs/run"
    steps: Annotated[int, Range(ge=1), Doc("training steps; step t turns policy t into policy t + 1")] = 100
    seed: Annotated[int, Range(ge=0, le=2**32 - 1), Doc("seed of data order, sampling and initialisation")] = 0
    deterministic: Annotated[
        bool,
        Doc("bit-equal results after a resume; needs queue.max_staleness 0, one rollout worker and one reward worker"),
    ] = False
