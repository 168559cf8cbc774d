"""Section `logging`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from r1ray.config.annotations import Doc, Range


@dataclass
class LoggingConfig:
    """Outputs besides metrics.jsonl and events.jsonl."""

    json: Annotated[
        bool, Doc("log lines of all processes, and lines on the terminal, as JSON with run, actor, step and version")
    ] = False
    tensorboard: Annotated[bool, Doc("event files under tensorboard/ in the run folder")] = True
    wandb_project: Annotated[str | None, Doc("project of Weights & Biases; null: not used")] = None
    transcripts_per_step: Annotated[int, Range(ge=0), Doc("sample completions that are kept for the report")] = 4
    transcripts_per_evaluation: Annotated[
        int, Range(ge=0), Doc("responses of each held-out source and evaluation that are kept for the report")
    ] = 8
