"""The nearest settings with which a learner rank fits its GPU, for messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from r1ray.config.lengths import longest_completion
from r1ray.config.schema import Config
from r1ray.config.uses import Use
from r1ray.models.folder import ModelShape
from r1ray.preflight.accelerators import ACCELERATORS
from r1ray.preflight.memory import learner_bytes

MOST = 5
"""Suggestions in one message."""


def nearest_learners(config: Config, shape: ModelShape, use: Use) -> list[str]:
    """Changes, each of which alone makes a rank fit, as on the command line; the ones that cost least come first."""
    found: dict[str, str] = {}  # what is changed -> the smallest change that is enough
    for text, changed in _changes(config, shape, use):
        gpu = changed.hardware.gpu
        assert gpu is not None, "only declared hardware is compared"
        device, _ = learner_bytes(changed, shape, use)
        if sum(device.values()) <= ACCELERATORS[gpu].memory_bytes * min(1.0, changed.learner.num_gpus):
            found.setdefault(text.partition("=")[0].partition(" of ")[0], text)
    return list(found.values())[:MOST]


def _changes(config: Config, shape: ModelShape, use: Use) -> Iterator[tuple[str, Config]]:
    """Candidates: memory for time, then more hardware, then shorter sequences."""
    learner, model = config.learner, config.model
    if not model.activation_checkpointing:
        yield (
            "model.activation_checkpointing=true",
            replace(config, model=replace(model, activation_checkpointing=True)),
        )
    n = learner.sequence_parallel
    shortest = -(-_longest_sequence(config, use) // n)
    for tokens in (t for t in _halves(learner.micro_batch_tokens, shortest) if t < learner.micro_batch_tokens):
        yield (
            f"learner.micro_batch_tokens={tokens}",
            replace(config, learner=replace(learner, micro_batch_tokens=tokens)),
        )
    for size in (2 * n, 4 * n, 8 * n):
        if learner.ranks % size == 0 and shape.heads % size == 0:
            tokens = -(-n * learner.micro_batch_tokens // size)
            yield (
                f"learner.sequence_parallel={size} learner.micro_batch_tokens={tokens}",
                replace(config, learner=replace(learner, sequence_parallel=size, micro_batch_tokens=tokens)),
            )
    for stage in range(learner.zero_stage + 1, 4):
        yield f"learner.zero_stage={stage}", replace(config, learner=replace(learner, zero_stage=stage))
    if not learner.offload_optimizer and learner.zero_stage:
        yield "learner.offload_optimizer=true", replace(config, learner=replace(learner, offload_optimizer=True))
    for ranks in (learner.ranks * factor for factor in (2, 4, 8) if learner.zero_stage):
        yield f"learner.ranks={ranks}", replace(config, learner=replace(learner, ranks=ranks))
    here = ACCELERATORS[config.hardware.gpu or "cpu"].memory_gb
    larger = sorted((d.memory_gb, name) for name, d in ACCELERATORS.items() if d.memory_gb > here)
    for _, name in larger:
        yield f"hardware.gpu={name}", replace(config, hardware=replace(config.hardware, gpu=name))
    for length in _halves(model.max_length, 1024)[1:]:
        yield (
            f"model.max_length and learner.micro_batch_tokens of {length} with shorter completions",
            replace(
                config,
                model=replace(model, max_length=length),
                learner=replace(learner, micro_batch_tokens=min(-(-length // n), learner.micro_batch_tokens)),
            ),
        )


def _longest_sequence(config: Config, use: Use) -> int:
    if use == "train":
        return config.data.max_prompt_tokens + longest_completion(config)
    return config.model.max_length * (2 if use == "reward-model" and config.reward_model.kind == "pairwise" else 1)


def _halves(value: int, least: int) -> list[int]:
    """`value`, its half, its quarter ... down to `least`, which is the last."""
    found = []
    while value > least:
        found.append(value)
        value //= 2
    return [*found, least]
