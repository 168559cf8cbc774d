"""A reward that tells the answers of a random model apart, so that there is something to learn."""

from __future__ import annotations

from r1ray.rewards.base import Sample


def plain_share(sample: Sample) -> float:
    """Share of the characters that are ASCII."""
    return sum(c.isascii() for c in sample.response) / max(1, len(sample.response))
