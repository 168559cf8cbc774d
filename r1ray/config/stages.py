"""Sections of the configuration that only some commands read: `r1ray sft`, `r1ray sample`, `r1ray eval`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SftConfig:
    """`r1ray sft`; the conversations are `data.train`."""

    epochs: int = 2
    batch_size: int = 128  # conversations of one optimiser step
    held_out: float = 0.01  # share of the conversations, where data.evaluation names no source
    evaluate_every_steps: int = 0  # 0: only before the first and after the last step


@dataclass
class SamplingConfig:
    """`r1ray sample` and `r1ray eval`."""

    part_prompts: int = 64  # prompts of one call to a rollout worker, and of one shard


@dataclass
class CurationConfig:
    """`r1ray sample`: which samples become the dataset."""

    min_language: float = 0.0  # least share of the chain of thought in the target language
