"""Section `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class EvaluationConfig:
    """Evaluations in the course of training, on `data.evaluation`."""

    every_steps: Annotated[
        int, Range(ge=0), Doc("training steps between evaluations; 0: only before the first and after the last step")
    ] = 0
    samples: Annotated[int, Range(ge=0), Doc("k, sampled completions per problem")] = 1
    temperature: Annotated[float, Range(gt=0, le=10), Doc("temperature of the sampled completions")] = 1.0
    top_p: Annotated[float, Range(gt=0, le=1), Doc("nucleus of the sampled completions")] = 1.0
    greedy: Annotated[bool, Doc("also one greedy completion per problem")] = True
    max_new_tokens: Annotated[
        int | None, Range(ge=1), Doc("limit of a completion, in tokens; null: as in training")
    ] = None
