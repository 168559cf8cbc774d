"""Checks of `learner.sequence_parallel`, and of the longest sequence that its ranks can hold together."""

from __future__ import annotations

from collections.abc import Iterator

from r1ray.config.problems import Problem, problem
from r1ray.config.rules import row_tokens
from r1ray.config.schema import Config


def sequence_parallel(config: Config) -> Iterator[Problem]:
    """Find groups of ranks that do not add up to all ranks, and attention that cannot be divided among them."""
    learner = config.learner
    n, ranks = learner.sequence_parallel, learner.ranks
    if ranks % n:
        sizes = [size for size in range(1, ranks + 1) if ranks % size == 0]
        nearest = min(sizes, key=lambda size: (abs(size - n), size))
        message = f"does not divide learner.ranks = {ranks}"
        yield problem(
            config, "learner.sequence_parallel", message, f"use {nearest}, or learner.ranks={-(-ranks // n) * n}"
        )
    if n > 1 and config.model.attention == "flash_attention_2":
        message = f"computes complete rows, but learner.sequence_parallel = {n} gives each rank a part of them"
        yield problem(config, "model.attention", message, "use auto, or learner.sequence_parallel=1")


def row_holds(config: Config, longest: int, what: str) -> Iterator[Problem]:
    """Find a packed row that is shorter than `what`, which has `longest` tokens."""
    if row_tokens(config) >= longest:
        return
    n = config.learner.sequence_parallel
    together = f" in the {n} ranks of a sequence group" if n > 1 else ""
    fix = f"use at least {-(-longest // n)}"
    yield problem(config, "learner.micro_batch_tokens", f"cannot hold {what}{together}", fix)
