"""Rewards for a random model: one that it can learn, and two that leave nothing to learn."""

from __future__ import annotations

from r1ray.rewards.base import Sample


def plain_share(sample: Sample) -> float:
    """Share of the characters that are ASCII."""
    return sum(c.isascii() for c in sample.response) / max(1, len(sample.response))


def broken(sample: Sample) -> float:
    """A reward with a bug: it fails on every sample, with text of the sample in its message."""
    raise KeyError(f"no unit in {sample.response[:20]!r} of prompt {sample.prompt_id!r}")


def constant(sample: Sample) -> float:
    """The same value for every sample."""
    return 0.25
