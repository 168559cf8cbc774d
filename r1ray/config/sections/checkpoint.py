"""Section `checkpoint`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class CheckpointConfig:
    """Checkpoints of the learner and the exported model."""

    every_steps: Annotated[int, Range(ge=1), Doc("training steps between checkpoints; the last step has one too")] = 20
    keep: Annotated[int, Range(ge=1), Doc("newest complete checkpoints that are kept")] = 2
    keep_every_steps: Annotated[
        int | None, Range(ge=1), Doc("checkpoints of every n-th step are kept for good; null: none")
    ] = None
    export_final: Annotated[bool, Doc("write final/ in the Hugging Face format at the end")] = True
