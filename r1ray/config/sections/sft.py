"""Section `sft`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class SftConfig:
    """Supervised fine-tuning (`r1ray sft`); the conversations are `data.train`."""

    epochs: Annotated[int, Range(ge=1), Doc("passes over the conversations")] = 2
    batch_size: Annotated[int, Range(ge=1), Doc("conversations of one optimiser step")] = 128
    held_out: Annotated[
        float,
        Range(ge=0, le=0.5),
        Doc("share of the conversations that is kept for evaluation if data.evaluation names no source"),
    ] = 0.01
    evaluate_every_steps: Annotated[
        int, Range(ge=0), Doc("steps between evaluations; 0: only before the first and after the last step")
    ] = 0
