"""Section `reward_model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from r1ray.config.annotations import Doc, Range


@dataclass
class RewardModelConfig:
    """Training of reward models (`r1ray reward-model`); the rows are `data.train`."""

    kind: Annotated[
        Literal["pairwise", "pointwise"],
        Doc("what a row says: which of two responses is better, or whether a response is safe"),
    ] = "pairwise"
    judge: Annotated[
        Literal["auto", "summary", "response"],
        Doc("part of a response that the model sees; auto: summary for pairwise, response for pointwise"),
    ] = "auto"
    epochs: Annotated[int, Range(ge=1), Doc("passes over the rows")] = 1
    batch_size: Annotated[int, Range(ge=1), Doc("rows of one optimizer step")] = 256
    held_out: Annotated[
        float,
        Range(gt=0, le=0.5),
        Doc("share of the prompts that is kept for evaluation if data.evaluation names no source"),
    ] = 0.05
    evaluate_every_steps: Annotated[
        int, Range(ge=0), Doc("steps between evaluations; 0: only before the first and after the last step")
    ] = 0
