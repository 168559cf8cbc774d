"""Section `replay`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, NonEmpty, Range


@dataclass
class ReplayConfig:
    """Training on the groups of a recorded run instead of new ones (`r1ray train --replay RUN`)."""

    run: Annotated[str | None, NonEmpty(), Doc("folder of the recorded run; null: sample new groups")] = None
    epochs: Annotated[int, Range(ge=1), Doc("passes over the recorded groups")] = 1
