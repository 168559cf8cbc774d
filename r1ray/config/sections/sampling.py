"""Section `sampling`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class SamplingConfig:
    """Sampling without training (`r1ray sample`, `r1ray eval`)."""

    prompts_per_part: Annotated[int, Range(ge=1), Doc("prompts of one call to a rollout worker, and of one shard")] = 64
